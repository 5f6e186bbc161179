"""Max pooling of x (N, C, L) or (N, C, H, W) through a buffer of a few channels: y may overwrite x."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd, prod

import numpy as np

from .bits import pack, packed_bytes, unpack
from .kernel import Array, Arrays, Attrs, Kernel, Shape, Shapes, Workspace, aligned, integers, present
from .strips import Window, window

CHUNK_BYTES = 8 * 1024


def argmax_type(taps: int) -> str:
    """Return the smallest type of the program that holds an index into a window of `taps` elements."""
    if taps <= 16:
        return "bit2" if taps <= 4 else "bit4"
    return "uint8" if taps <= 256 else "int32"


@dataclass(frozen=True)
class _Pooling:
    """The geometry of a pooling.

    Attributes:
        view: the window; a signal (N, C, L) is a picture of one row.
        y: channels, rows and columns of the result.
        bits: of a place of the argmax in a byte; 8 where it has a byte or more for itself.
        index: NumPy's type of an unpacked place.
        channels: of a chunk: about 8 KiB of results, ending on a whole byte of the packed argmax.
    """

    view: Window
    y: tuple[int, int, int]
    bits: int
    index: np.dtype[np.uint8] | np.dtype[np.int32]
    channels: int

    @property
    def chunk_elements(self) -> int:
        """Results of a chunk."""
        return self.channels * self.y[1] * self.y[2]

    @property
    def places(self) -> int:
        """Unpacked places of a chunk, whole bytes of them."""
        return packed_bytes(self.chunk_elements, self.bits) * 8 // self.bits

    def chunks(self) -> Iterator[tuple[slice, slice]]:
        """Yield (channels, slots of the flat argmax) of every chunk of one sample."""
        space = self.y[1] * self.y[2]
        for start in range(0, self.y[0], self.channels):
            stop = min(start + self.channels, self.y[0])
            slots = slice(start * space * self.bits // 8, packed_bytes(stop * space, self.bits))
            yield slice(start, stop), slots


def _pooling(x: Shape, attrs: Attrs, itemsize: int) -> _Pooling:
    view = _window(x, attrs)
    space = view.rows.out * view.columns.out
    kind = argmax_type(view.taps)
    bits = {"bit2": 2, "bit4": 4}.get(kind, 8)
    step = 8 // bits // gcd(8 // bits, space)
    channels = min(x[1], step * max(1, CHUNK_BYTES // (space * itemsize * step)))
    index = np.dtype(np.int32) if kind == "int32" else np.dtype(np.uint8)
    return _Pooling(view, (x[1], view.rows.out, view.columns.out), bits, index, channels)


def _window(x: Shape, attrs: Attrs) -> Window:
    rank = len(x) - 2
    kernel, strides = integers(attrs, "kernel", rank), integers(attrs, "strides", rank)
    pads = integers(attrs, "pads", 2 * rank)
    if rank == 1:
        flat = {"strides": [1, *strides], "pads": [0, pads[0], 0, pads[1]]}
        return window((1, *x[2:]), (1, *kernel), flat)
    return window(x[2:], tuple(kernel), attrs)


def _maps(values: Array) -> Array:
    """(N, C, L) as (N, C, 1, L)."""
    return values.reshape(*values.shape[:2], -1, values.shape[-1])


def _max_pool(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (x,) = present(inputs)
    y, argmax = outputs
    pool = _pooling(x.shape, attrs, x.itemsize)
    pieces = Workspace(workspace)
    best = pieces.take(pool.chunk_elements, x.dtype)
    index = None if argmax is None else _Index.carve(pieces, pool)
    maps = _maps(x)
    # y may lie on the start of x: go the way on which no result covers an element that is still to be read
    order = 1 if prod(pool.y[1:]) <= prod(x.shape[2:]) else -1
    chunks = list(pool.chunks())[::order]
    for sample in range(x.shape[0])[::order]:
        for channels, slots in chunks:
            part = (channels.stop - channels.start, *pool.y[1:])
            result = best[: prod(part)].reshape(part)
            _pool_chunk(maps[sample, channels], pool.view, result, index)
            if y is not None:
                np.copyto(y[sample].reshape(pool.y)[channels], result)
            if argmax is not None and index is not None:
                index.store(argmax[sample].reshape(-1)[slots], pool.bits)


@dataclass(frozen=True)
class _Index:
    """Buffers of a chunk, flat: the place of an element in its window, and a mask over elements."""

    places: Array
    mask: Array

    @classmethod
    def carve(cls, pieces: Workspace, pool: _Pooling) -> _Index:
        return cls(pieces.take(pool.places, pool.index), pieces.take(pool.chunk_elements, np.bool_))

    def shaped(self, shape: Shape) -> tuple[Array, Array]:
        return self.places[: prod(shape)].reshape(shape), self.mask[: prod(shape)].reshape(shape)

    def store(self, slots: Array, bits: int) -> None:
        """Write the places into their slots of the argmax."""
        if bits == 8:
            np.copyto(slots, self.places[: slots.size])
        else:
            pack(self.places[: slots.size * 8 // bits], bits, slots)

    def load(self, slots: Array, bits: int) -> None:
        """Read the places from their slots of the argmax."""
        if bits == 8:
            np.copyto(self.places[: slots.size], slots)
        else:
            unpack(slots, bits, self.places[: slots.size * 8 // bits])


def _pool_chunk(x: Array, view: Window, best: Array, index: _Index | None) -> None:
    """Write the maxima of x (C, H, W) into best (C, H', W') and their first places into index."""
    best.fill(-np.inf)
    if index is not None:
        index.places.fill(0)
    for tap, (rows_out, across_out), (rows_in, across_in) in view.overlaps(view.whole):
        source = x[:, rows_in, across_in]
        target = best[:, rows_out, across_out]
        if index is not None:
            places, mask = (buffer[:, rows_out, across_out] for buffer in index.shaped(best.shape))
            np.greater(source, target, out=mask)
            np.copyto(places, tap, where=mask)
        np.maximum(target, source, out=target)


def _max_pool_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    gy, argmax = present(inputs)
    (gx,) = present(outputs)
    pool = _pooling(gx.shape, attrs, gx.itemsize)
    pieces = Workspace(workspace)
    routed, index = pieces.take(pool.chunk_elements, gx.dtype), _Index.carve(pieces, pool)
    for sample in range(gx.shape[0]):
        for channels, slots in pool.chunks():
            index.load(argmax[sample].reshape(-1)[slots], pool.bits)
            part = gy[sample].reshape(pool.y)[channels]
            _route_chunk(part, pool.view, index, routed, _maps(gx)[sample, channels])


def _route_chunk(gy: Array, view: Window, index: _Index, routed: Array, gx: Array) -> None:
    """Zero gx (C, H, W), then add every element of gy (C, H', W') at its window's place; windows may overlap."""
    gx.fill(0)
    places, mask = index.shaped(gy.shape)
    part = routed[: gy.size].reshape(gy.shape)
    for tap, (rows_out, across_out), (rows_in, across_in) in view.overlaps(view.whole):
        np.equal(places, tap, out=mask)
        part.fill(0)
        np.copyto(part, gy, where=mask)
        target = gx[:, rows_in, across_in]
        np.add(target, part[:, rows_out, across_out], out=target)


def _workspace(pool: _Pooling, itemsize: int, indexed: bool) -> int:
    results = aligned(pool.chunk_elements * itemsize)
    index = aligned(pool.places * pool.index.itemsize) + aligned(pool.chunk_elements)
    return results + (index if indexed else 0)


def _pool_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (x,) = present(inputs)
    return _workspace(_pooling(x, attrs, itemsize), itemsize, indexed=outputs[1] is not None)


def _pool_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (gx,) = present(outputs)
    return _workspace(_pooling(gx, attrs, itemsize), itemsize, indexed=True)


KERNELS = {
    "MaxPool": Kernel(_max_pool, _pool_workspace, in_place={0: 0}),
    "MaxPoolGrad": Kernel(_max_pool_grad, _pool_grad_workspace),
}
