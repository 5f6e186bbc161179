"""The native engine: the plan's step programs in C, one call for all steps of a phase."""

from __future__ import annotations

from ..native import best
from ..native.target import NativeTarget
from .native_binding import NativeBackend
from .planned import PlannedEngine

MOST_THREADS = 64


class NativeEngine(PlannedEngine):
    """Runs a plan's step programs with the kernels of `edge/native`, all writes inside the arena.

    Raises:
        NotBuiltError: the kernels were not compiled for this machine.
    """

    def __init__(self, threads: int = 1) -> None:
        library = best()
        library.start_threads(threads)
        super().__init__("native", NativeTarget(library, threads), NativeBackend(library, threads))
