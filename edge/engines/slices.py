"""A `Slices` step: a chain of operations, block of channels by block of channels, sample by sample.

The inner operations are ordinary kernels on slices of the step's values and on tiles; here one worker takes all
blocks in order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..lower.table import Slices, Step, Tile
from ..program import DTYPE_BITS
from .base import Array
from .calls import run_operation


@dataclass(frozen=True)
class SlicesCall:
    """A `Slices` step with its arrays.

    Attributes:
        step: the step.
        arrays: its inputs and outputs by name, all samples at hand.
        batched: which of them have a batch axis.
        count: samples at hand.
        workspace: tiles, then scratch memory.
    """

    step: Step
    arrays: Mapping[str, Array]
    batched: Collection[str]
    count: int
    workspace: Array

    @property
    def outputs(self) -> tuple[Array | None, ...]:
        """The arrays of the step's outputs."""
        return tuple(self.arrays[name] if name else None for name in self.step.outputs)

    def run(self, extra: Mapping[str, Any]) -> None:
        """Run all blocks, the kernels with their steps' attributes and `extra` ones.

        Raises:
            NotFinite: an update met a gradient that is not finite; blocks before it have been updated.
        """
        inner = self.step.slices
        assert inner is not None
        scratch = self.workspace[inner.tile_bytes : inner.tile_bytes + inner.scratch_bytes]
        own = {
            tile.name: _over(self.workspace[tile.offset :], tile)
            for tile in inner.tiles.values()
            if not tile.over
        }
        for block in range(inner.blocks):
            _run(inner.before, {**own, **self._views(inner, block, inner.before, 0)}, scratch, extra)
            for sample in range(self.count):
                _run(inner.each, {**own, **self._views(inner, block, inner.each, sample)}, scratch, extra)
            _run(inner.after, {**own, **self._views(inner, block, inner.after, 0)}, scratch, extra)

    def _views(self, inner: Slices, block: int, steps: Sequence[Step], sample: int) -> dict[str, Array]:
        """Return the slices that some inner steps name, and the tiles that lie over slices."""
        views = {}
        for name in named(steps):
            tile = inner.tiles.get(name)
            if tile is None:
                views[name] = self._slice(inner, name, block, sample)
            elif tile.over:
                views[name] = _over(self._slice(inner, tile.over, block, sample), tile)
        return views

    def _slice(self, inner: Slices, name: str, block: int, sample: int) -> Array:
        array = self.arrays[name]
        batched = name in self.batched
        if batched:
            array = array[sample : sample + 1]
        if name not in inner.sliced:
            return array
        axis = 1 if batched else 0
        step = array.shape[axis] // inner.blocks
        part = slice(block * step, (block + 1) * step)
        return array[:, part] if batched else array[part]


def named(steps: Iterable[Step]) -> list[str]:
    """Return the names of all values of some steps, each once."""
    return list(dict.fromkeys(name for step in steps for name in (*step.inputs, *step.outputs) if name))


def _over(memory: Array, tile: Tile) -> Array:
    """Return a tile's array from the first byte of `memory` on."""
    dtype = np.dtype(np.uint8 if DTYPE_BITS[tile.dtype] < 8 else tile.dtype)
    size_bytes = int(np.prod(tile.shape)) * dtype.itemsize
    return memory.reshape(-1).view(np.uint8)[:size_bytes].view(dtype).reshape(tile.shape)


def _run(
    steps: Sequence[Step], arrays: Mapping[str, Array], scratch: Array, extra: Mapping[str, Any]
) -> None:
    for step in steps:
        inputs, outputs = (
            [arrays[name] if name else None for name in names] for names in (step.inputs, step.outputs)
        )
        run_operation(step, inputs, outputs, scratch[: step.workspace_bytes], extra)
