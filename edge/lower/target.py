"""What lowering and planning need to know of the engine a plan is made for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType
from typing import Protocol

from ..reference import KERNELS
from ..reference.kernel import Attrs, Shapes
from .table import Lowered

ITEM_BYTES = 4


@dataclass(frozen=True)
class Rates:
    """A rough speed, to rank plans.

    Attributes:
        call: seconds for calling one operation.
        mac: seconds for one multiply-accumulate.
        byte: seconds for one byte written.
        far_byte: seconds more for one byte where an operation writes more than `near_bytes`, which leave the cache.
        near_bytes: what stays in the cache until the next operation reads it.
        tile_byte: seconds for one byte written into a tile.
        tile_mac: seconds more for one multiply-accumulate of a convolution of a tile, whose kernels reuse less.
        lean_mac: seconds more for one multiply-accumulate of a convolution that uses little workspace.
    """

    call: float
    mac: float
    byte: float
    far_byte: float = 0.0
    near_bytes: int = 1 << 20
    tile_byte: float = 0.0
    tile_mac: float = 0.0
    lean_mac: float = 0.0


class Target(Protocol):
    """An engine as lowering and planning see it."""

    @property
    def name(self) -> str:
        """Name of the engine."""

    @property
    def threads(self) -> int:
        """How many threads it uses; workspaces may grow with them."""

    @property
    def rates(self) -> Rates:
        """Its speed."""

    def workspace_bytes(self, kind: str, inputs: Shapes, outputs: Shapes, attrs: Attrs, threads: int) -> int:
        """Return the scratch memory of one operation; packed tensors have shape (N, bytes)."""

    def table_bytes(self, lowered: Lowered) -> int:
        """Return the bytes of the step table as the engine keeps it while it runs."""


@dataclass(frozen=True)
class ReferenceTarget:
    """NumPy on one thread, on a small ARM or x86 core."""

    name: str = "reference"
    threads: int = 1
    rates: Rates = Rates(call=20e-6, mac=1 / 4e9, byte=1 / 2e9, tile_byte=1 / 4e9)

    def workspace_bytes(self, kind: str, inputs: Shapes, outputs: Shapes, attrs: Attrs, threads: int) -> int:
        """See `Target`."""
        return KERNELS[kind].workspace_bytes(inputs, outputs, attrs, ITEM_BYTES)

    def table_bytes(self, lowered: Lowered) -> int:
        """Return the bytes of all Python objects of the step table, each counted once (`sys.getsizeof`).

        Equal numbers and texts count as one object each, whether Python made one or two: equal tables have equal
        sizes.
        """
        return _object_bytes(lowered)


REFERENCE = ReferenceTarget()


def _object_bytes(root: object) -> int:
    seen: set[object] = set()
    pending: list[object] = [root]
    total = 0
    while pending:
        item = pending.pop()
        key = (type(item), item) if isinstance(item, (int, float, str, NoneType)) else id(item)
        if key in seen:
            continue
        seen.add(key)
        total += sys.getsizeof(item)
        if isinstance(item, Mapping):
            pending.extend((*item.keys(), *item.values()))
        elif isinstance(item, (tuple, list, frozenset)):
            pending.extend(item)
        elif is_dataclass(item):
            pending.extend(getattr(item, field.name) for field in fields(item))
    return total
