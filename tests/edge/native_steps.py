"""Step programs written by hand, with a `Slices` step, and their place in an arena with guard bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from edge_adapt.edge.engines.arena import Arena
from edge_adapt.edge.engines.binding import Place
from edge_adapt.edge.lower.memory import stored_shape, workspace_buffers
from edge_adapt.edge.lower.table import SLICES, Buffer, Segment, Slices, Step, StepProgram, Tile, Value
from edge_adapt.edge.program import Tensor
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[Any, ...]
ALIGNMENT, GUARD, BATCH = 64, 0xA5, 3
SCRATCH_BYTES = 2**17
CONV = {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "groups": 1}
POOL = {"kernel": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}
NORM = {"groups": 4, "eps": 1e-5}


def program_of(inside: Mapping[str, tuple[Shape, str]], outside: Mapping[str, tuple[Shape, str]], *steps: Step) -> StepProgram:  # fmt: skip # noqa: E501
    """A body of these steps; every value inside has a buffer of its own all the time."""
    values = {n: Value(n, shape, dtype, n if n in inside else "") for n, (shape, dtype) in {**inside, **outside}.items()}  # fmt: skip # noqa: E501
    last = len(steps) - 1
    buffers = [
        Buffer(name, (Segment(0, last, Tensor(name, shape, dtype).size_bytes(BATCH), "working"),))
        for name, (shape, dtype) in inside.items()
    ]
    return StepProgram(
        (), steps, (0, len(steps)), values, (*buffers, *workspace_buffers(steps)), (), {}, BATCH
    )


def chain(
    blocks: int, sliced: Sequence[str], tiles: Sequence[Tile], threads: int,
    before: Sequence[Step] = (), each: Sequence[Step] = (), after: Sequence[Step] = (),
) -> Step:  # fmt: skip
    """A Slices step; tiles as placed by the caller, scratch memory generous."""
    before, each, after = (
        [replace(step, workspace_bytes=SCRATCH_BYTES) for step in steps] for steps in (before, each, after)
    )
    names = {tile.name for tile in tiles}
    steps = (*before, *each, *after)
    written = list(dict.fromkeys(n for s in steps for n in s.outputs if n and n not in names))
    read = list(
        dict.fromkeys(n for s in steps for n in s.inputs if n and n not in names and n not in written)
    )
    ends = [tile.offset + int(np.prod(tile.shape)) * 4 for tile in tiles if not tile.over]
    tile_bytes = -(-max(ends, default=0) // ALIGNMENT) * ALIGNMENT
    inner = Slices(
        blocks, frozenset(sliced), tuple(before), tuple(each), tuple(after), {t.name: t for t in tiles},
        tile_bytes, SCRATCH_BYTES, {},
    )  # fmt: skip
    workers = min(threads, blocks)
    return Step(
        SLICES, tuple(read), tuple(written), workspace_bytes=workers * (tile_bytes + SCRATCH_BYTES), slices=inner,
        macs=10**7,
    )  # fmt: skip


def norm_chain(blocks: int, threads: int) -> StepProgram:
    """GroupNorm, ReLU, pool; what lies between them is never a whole map."""
    channels = 8 // blocks
    tile = (1, channels, 8, 8)
    each = [
        Step("GroupNorm", ("x", "scale", "bias"), ("z", "x_hat", "inv_std"), {**NORM, "groups": 4 // blocks}),
        Step("Relu", ("z",), ("r", "mask")),
        Step("MaxPool", ("r",), ("p", "argmax"), POOL),
    ]
    tiles = [Tile("z", tile, "float32", "", 0), Tile("r", tile, "float32", "", 4 * 64 * channels)]
    sliced = ("x", "scale", "bias", "x_hat", "inv_std", "mask", "p", "argmax") if blocks > 1 else ()
    maps, small = ("N", 8, 8, 8), ("N", 8, 4, 4)
    inside = {
        "x_hat": (maps, "float32"), "inv_std": (("N", 4), "float32"), "mask": (maps, "bit1"),
        "p": (small, "float32"), "argmax": (small, "bit2"),
    }  # fmt: skip
    outside = {"x": (maps, "float32"), "scale": ((8,), "float32"), "bias": ((8,), "float32")}
    return program_of(inside, outside, chain(blocks, sliced, tiles, threads, each=each))


def update_chain(blocks: int, threads: int) -> StepProgram:
    """A weight gradient and its update, some output channels at a time; the gradient is never whole."""
    gradient = Tile("gw", (8 // blocks, 3, 3, 3), "float32", "", 0)
    step = chain(
        blocks, ("gy", "w", "new w") if blocks > 1 else (), [gradient], threads,
        before=[Step("Zero", (), ("gw",))],
        each=[Step("ConvWeightGrad", ("x", "gy", "weight"), ("gw",), CONV)],
        after=[Step("SgdUpdate", ("w", "gw", "alpha"), ("new w",), {"layer_index": 1})],
    )  # fmt: skip
    kernels = ((8, 3, 3, 3), "float32")
    outside = {
        "x": (("N", 3, 7, 7), "float32"), "weight": (("N",), "float32"), "alpha": ((2, 3), "float32"),
        "w": kernels, "new w": kernels, "gy": (("N", 8, 7, 7), "float32"),
    }  # fmt: skip
    return program_of({}, outside, step)


def conv_chain(threads: int) -> StepProgram:
    """Convolution and ReLU sample by sample; the convolution's tile lies over the result's slice."""
    step = chain(
        1, (), [Tile("y", (1, 8, 7, 7), "float32", "r", 0)], threads,
        each=[Step("Conv", ("x", "w", "bias"), ("y",), CONV), Step("Relu", ("y",), ("r", "mask"))],
    )  # fmt: skip
    maps = ("N", 8, 7, 7)
    outside = {"x": (("N", 3, 7, 7), "float32"), "w": ((8, 3, 3, 3), "float32"), "bias": ((8,), "float32")}
    return program_of({"r": (maps, "float32"), "mask": (maps, "bit1")}, outside, step)


def given(program: StepProgram, count: int, seed: int = 0) -> dict[str, Array]:
    """Normal numbers for the values outside the arena; `new w` is `w`, as for an engine."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, value in program.values.items():
        if not value.buffer:
            shape = stored_shape(Tensor(name, value.shape, value.dtype), count)
            arrays[name] = rng.normal(size=shape).astype(np.float32)
    if "new w" in arrays:
        arrays["new w"] = arrays["w"]
    return arrays


class GuardedArena:
    """An arena with 64 guard bytes before, between and after all buffers of a program."""

    def __init__(self, program: StepProgram, caches: Mapping[str, int] | None = None) -> None:
        sizes = {buffer.name: buffer.bytes for buffer in program.buffers} | dict(caches or {})
        self.offsets: dict[str, int] = {}
        end = ALIGNMENT
        for name, size in sizes.items():
            self.offsets[name] = end
            end += -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT
        self.arena = Arena(end)
        memory = self.arena.view(0, (end,), np.uint8)
        memory[:] = GUARD
        owned = np.zeros(end, bool)
        for name, size in sizes.items():
            owned[self.offsets[name] : self.offsets[name] + size] = True
        self._guards, self._memory = ~owned, memory

    def place(self, count: int, outside: Mapping[str, Array], first: int = 0) -> Place:
        """For that many samples."""
        return Place(self.offsets, self.arena, first, count, outside.__getitem__)

    def check(self) -> None:
        """Raise AssertionError if a byte outside the buffers was changed."""
        assert (self._memory[self._guards] == GUARD).all(), "a byte between two buffers was written"
