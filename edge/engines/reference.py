"""The reference engine: NumPy kernels over the planned arena, on every machine."""

from __future__ import annotations

from ..lower import REFERENCE
from .binding import ReferenceBackend
from .planned import PlannedEngine


class ReferenceEngine(PlannedEngine):
    """Runs a plan's step programs with the kernels of `edge/reference`, every write inside the arena."""

    def __init__(self) -> None:
        super().__init__("reference", REFERENCE, ReferenceBackend())
