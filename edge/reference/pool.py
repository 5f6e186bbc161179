"""Max pooling through a buffer of a few channels, so that the result may overwrite its input."""

from __future__ import annotations

from collections.abc import Iterator
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
    best, larger = pieces.take(count, x.dtype), pieces.take(count, np.bool_)
    index = None if argmax is None else pieces.take(packed_bytes(count, bits) * 8 // bits, np.uint8)
    for sample in range(x.shape[0]):
        for channels, packed in _chunks(shape, bits, x.itemsize):
            part = (channels.stop - channels.start, *shape[2:])
            used = prod(part)
            result = best[:used].reshape(part)
            _pool_chunk(x[sample, channels], view, result, larger[:used].reshape(part), index)
            if y is not None:
                np.copyto(y[sample, channels], result)
            if argmax is not None and index is not None:
                target = argmax[sample].reshape(-1)[packed]
                pack(index[: target.size * 8 // bits], bits, target)


def _pool_chunk(x: Array, view: Window, best: Array, larger: Array, index: Array | None) -> None:
    """Write the maxima of x (C, H, W) into best (C, H', W') and their first places into index, flat."""
    best.fill(-np.inf)
    places = None
    if index is not None:
        index.fill(0)
        places = index[: best.size].reshape(best.shape)
    for tap, (rows_out, across_out), (rows_in, across_in) in view.overlaps(view.whole):
        source = x[:, rows_in, across_in]
        target = best[:, rows_out, across_out]
        if places is not None:
            above = larger[:, rows_out, across_out]
            np.greater(source, target, out=above)
            np.copyto(places[:, rows_out, across_out], tap, where=above)
        np.maximum(target, source, out=target)


def _max_pool_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    gy, argmax = present(inputs)
    (gx,) = present(outputs)
    view = _view(gx.shape, attrs)
    bits, count = argmax_bits(view.taps), _chunk_elements(gy.shape, view, gx.itemsize)
    pieces = Workspace(workspace)
    routed, chosen = pieces.take(count, gx.dtype), pieces.take(count, np.bool_)
    index = pieces.take(packed_bytes(count, bits) * 8 // bits, np.uint8)
    for sample in range(gx.shape[0]):
        for channels, packed in _chunks(gy.shape, bits, gx.itemsize):
            source = argmax[sample].reshape(-1)[packed]
            unpack(source, bits, index[: source.size * 8 // bits])
            _route_chunk(gy[sample, channels], view, index, routed, chosen, gx[sample, channels])


def _route_chunk(gy: Array, view: Window, index: Array, routed: Array, chosen: Array, gx: Array) -> None:
    gx.fill(0)
    places, mask, part = (buffer[: gy.size].reshape(gy.shape) for buffer in (index, chosen, routed))
    for tap, (rows_out, across_out), (rows_in, across_in) in view.overlaps(view.whole):
        np.equal(places, tap, out=mask)
        part.fill(0)
        np.copyto(part, gy, where=mask)
        target = gx[:, rows_in, across_in]
        np.add(target, part[:, rows_out, across_out], out=target)


def _chunk_elements(y: Shape, view: Window, itemsize: int) -> int:
    return _chunk_channels(y, argmax_bits(view.taps), itemsize) * y[2] * y[3]


def _workspace(y: Shape, view: Window, itemsize: int, indexed: bool) -> int:
    bits, count = argmax_bits(view.taps), _chunk_elements(y, view, itemsize)
    index = packed_bytes(count, bits) * 8 // bits if indexed else 0
    return aligned(count * itemsize) + aligned(count) + aligned(index)


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
