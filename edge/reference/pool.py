"""Max pooling through a buffer of a few channels, so that the result may overwrite its input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd, prod

import numpy as np

from .bits import pack, packed_bytes, unpack
from .kernel import Array, Arrays, Attrs, Kernel, Shape, Shapes, Workspace, aligned, integers, present
from .strips import Window, window

CHUNK_BYTES = 8 * 1024


def argmax_bits(taps: int) -> int:
    """Return the bits of an index into a window of `taps`: 2, 4 or 8; raises ValueError above 256 taps."""
    if taps > 256:
        raise ValueError(f"a pooling window of {taps} elements does not fit the argmax: at most 256")
    return 2 if taps <= 4 else 4 if taps <= 16 else 8


def _view(x: Shape, attrs: Attrs) -> Window:
    return window(x[2:], tuple(integers(attrs, "kernel", 2)), attrs)


def _chunk_channels(y: Shape, bits: int, itemsize: int) -> int:
    """Return channels per chunk: about 8 KiB of results, ending on a whole byte of the packed argmax."""
    space, per_byte = y[2] * y[3], 8 // bits
    step = per_byte // gcd(per_byte, space)
    return min(y[1], step * max(1, CHUNK_BYTES // (space * itemsize * step)))


def _chunks(y: Shape, bits: int, itemsize: int) -> Iterator[tuple[slice, slice]]:
    """Yield (channels, bytes of the packed argmax) of every chunk of one sample."""
    size, space = _chunk_channels(y, bits, itemsize), y[2] * y[3]
    for start in range(0, y[1], size):
        stop = min(start + size, y[1])
        yield slice(start, stop), slice(start * space * bits // 8, packed_bytes(stop * space, bits))


def _max_pool(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (x,) = present(inputs)
    y, argmax = outputs
    view = _view(x.shape, attrs)
    shape = (x.shape[0], x.shape[1], view.rows.out, view.columns.out)
    bits, count = argmax_bits(view.taps), _chunk_elements(shape, view, x.itemsize)
    pieces = Workspace(workspace)
    best = pieces.take(count, x.dtype)
    index = None if argmax is None else _Index.carve(pieces, count, bits)
    # y may lie on the start of x: go the way on which no result covers an element that is still to be read
    order = 1 if prod(shape[2:]) <= prod(x.shape[2:]) else -1
    chunks = list(_chunks(shape, bits, x.itemsize))[::order]
    for sample in range(x.shape[0])[::order]:
        for channels, packed in chunks:
            part = (channels.stop - channels.start, *shape[2:])
            result = best[: prod(part)].reshape(part)
            _pool_chunk(x[sample, channels], view, result, index)
            if y is not None:
                np.copyto(y[sample, channels], result)
            if argmax is not None and index is not None:
                target = argmax[sample].reshape(-1)[packed]
                pack(index.places[: target.size * 8 // bits], bits, target)


@dataclass(frozen=True)
class _Index:
    """Buffers of a chunk, flat: the place of an element in its window (uint8), and a mask over elements."""

    places: Array
    mask: Array

    @classmethod
    def carve(cls, pieces: Workspace, count: int, bits: int) -> _Index:
        return cls(pieces.take(_whole_bytes(count, bits), np.uint8), pieces.take(count, np.bool_))

    def shaped(self, shape: Shape) -> tuple[Array, Array]:
        return self.places[: prod(shape)].reshape(shape), self.mask[: prod(shape)].reshape(shape)


def _whole_bytes(count: int, bits: int) -> int:
    return packed_bytes(count, bits) * 8 // bits


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
    view = _view(gx.shape, attrs)
    bits, count = argmax_bits(view.taps), _chunk_elements(gy.shape, view, gx.itemsize)
    pieces = Workspace(workspace)
    routed, index = pieces.take(count, gx.dtype), _Index.carve(pieces, count, bits)
    for sample in range(gx.shape[0]):
        for channels, packed in _chunks(gy.shape, bits, gx.itemsize):
            source = argmax[sample].reshape(-1)[packed]
            unpack(source, bits, index.places[: source.size * 8 // bits])
            _route_chunk(gy[sample, channels], view, index, routed, gx[sample, channels])


def _route_chunk(gy: Array, view: Window, index: _Index, routed: Array, gx: Array) -> None:
    gx.fill(0)
    places, mask = index.shaped(gy.shape)
    part = routed[: gy.size].reshape(gy.shape)
    for tap, (rows_out, across_out), (rows_in, across_in) in view.overlaps(view.whole):
        np.equal(places, tap, out=mask)
        part.fill(0)
        np.copyto(part, gy, where=mask)
        target = gx[:, rows_in, across_in]
        np.add(target, part[:, rows_out, across_out], out=target)


def _chunk_elements(y: Shape, view: Window, itemsize: int) -> int:
    return _chunk_channels(y, argmax_bits(view.taps), itemsize) * y[2] * y[3]


def _workspace(y: Shape, view: Window, itemsize: int, indexed: bool) -> int:
    count = _chunk_elements(y, view, itemsize)
    index = aligned(_whole_bytes(count, argmax_bits(view.taps))) + aligned(count)
    return aligned(count * itemsize) + (index if indexed else 0)


def _pool_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (x,) = present(inputs)
    view = _view(x, attrs)
    y = (x[0], x[1], view.rows.out, view.columns.out)
    return _workspace(y, view, itemsize, indexed=outputs[1] is not None)


def _pool_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    gy, _ = present(inputs)
    (gx,) = present(outputs)
    return _workspace(gy, _view(gx, attrs), itemsize, indexed=True)


KERNELS = {
    "MaxPool": Kernel(_max_pool, _pool_workspace, in_place={0: 0}),
    "MaxPoolGrad": Kernel(_max_pool_grad, _pool_grad_workspace),
}
