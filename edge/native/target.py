"""The native engine as lowering and planning see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..lower.table import Lowered
from ..lower.target import Rates
from ..reference.kernel import Attrs, Shapes
from .library import Library
from .table import table_bytes

CALL_SECONDS, MACS_PER_SECOND, BYTES_PER_SECOND, FAR_SECONDS = 0.3e-6, 60e9, 8e9, 4.5e-11
TILE_BYTE_SECONDS, TILE_MAC_SECONDS, LEAN_MAC_SECONDS = 5.5e-11, 1.2e-11, 0.8e-11
"""Of one core of an AVX-512 x86 machine (docs/speed.md); only their proportions matter."""
WORKSPACES = 512


class NativeTarget:
    """The kernels of `edge/native` on some threads; see `Target`."""

    name = "native"

    def __init__(self, library: Library, threads: int) -> None:
        self.threads = threads
        self.rates = Rates(
            CALL_SECONDS,
            1 / (MACS_PER_SECOND * threads),
            1 / BYTES_PER_SECOND,
            FAR_SECONDS,
            tile_byte=TILE_BYTE_SECONDS,
            tile_mac=TILE_MAC_SECONDS / threads,
            lean_mac=LEAN_MAC_SECONDS / threads,
        )
        self._with_workspace = {kind for kind in library.codes if library.has_workspace(kind)}
        self._workspace_bytes = lru_cache(WORKSPACES)(_Asked(library))

    def workspace_bytes(self, kind: str, inputs: Shapes, outputs: Shapes, attrs: Attrs, threads: int) -> int:
        """See `Target.workspace_bytes`."""
        if kind not in self._with_workspace:
            return 0
        listed = tuple((name, tuple(v) if isinstance(v, list) else v) for name, v in attrs.items())
        return self._workspace_bytes(kind, tuple(inputs), tuple(outputs), listed, threads)

    def table_bytes(self, lowered: Lowered) -> int:
        """Return the bytes of the executor's step tables."""
        return sum(table_bytes(program) for program in lowered.all_programs)


@dataclass(frozen=True)
class _Asked:
    """What the library says, of arguments that can be kept."""

    library: Library

    def __call__(
        self, kind: str, inputs: Shapes, outputs: Shapes, attrs: tuple[tuple[str, Any], ...], threads: int
    ) -> int:
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in attrs}
        return self.library.workspace_bytes(kind, inputs, outputs, plain, threads)
