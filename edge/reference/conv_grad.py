"""Parameter gradients of the convolution, from dense maps and from the channels kept of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .conv import Geometry, geometry, maps
from .kernel import (
    STRIP_BYTES,
    Array,
    Arrays,
    Attrs,
    Kernel,
    Shape,
    Shapes,
    Workspace,
    aligned,
    optional,
    present,
)
from .strips import Window, gathered, strip_elements
from .sums import sample_factors


def _product_elements(depth: int, outputs: int, itemsize: int) -> int:
    return depth * min(outputs, max(1, STRIP_BYTES // (depth * itemsize)))


def _correlate(
    x: Array, gy: Array, view: Window, buffer: Array, product: Array, add: Callable[[int, Array], None]
) -> None:
    """Call `add(first output, gy correlated with x)` in tiles (outputs, channels, taps) it may change."""
    depth = x.shape[0] * view.taps
    size = product.size // depth
    for positions, columns in gathered(x, view, buffer):
        for start in range(0, gy.shape[0], size):
            part = gy[start : start + size, positions]
            tile = product[: part.shape[0] * depth].reshape(part.shape[0], depth)
            np.matmul(part, columns.T, out=tile)
            add(start, tile.reshape(part.shape[0], x.shape[0], view.taps))


def _conv_weight_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, gy, sample_weight = present(inputs[:3])
    fw, bw = optional(inputs, 3), optional(inputs, 4)
    (gw,) = present(outputs)
    geo = geometry(x.shape, gw.shape, attrs)
    factors, product, buffer = _pieces(workspace, geo, geo.channels, gw)
    for sample in range(x.shape[0]):
        sample_factors(sample_weight, bw, sample, factors)
        for group in range(geo.groups):
            rows, channels = geo.outputs_of(group), geo.inputs_of(group)
            add = _dense_adder(maps(gw)[rows], factors[rows], None if fw is None else fw[sample, channels])
            _correlate(x[sample, channels], maps(gy)[sample, rows], geo.view, buffer, product, add)


def _dense_adder(gw: Array, factors: Array, fw: Array | None) -> Callable[[int, Array], None]:
    def add(start: int, tile: Array) -> None:
        rows = slice(start, start + tile.shape[0])
        np.multiply(tile, factors[rows, None, None], out=tile)
        if fw is not None:
            np.multiply(tile, fw[:, None], out=tile)
        np.add(gw[rows], tile, out=gw[rows])

    return add


def _conv_weight_grad_sparse(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    kept, index, gy, sample_weight = present(inputs[:4])
    bw = optional(inputs, 4)
    (gw,) = present(outputs)
    geo = geometry(kept.shape, gw.shape, attrs)
    factors, product, buffer = _pieces(workspace, geo, min(kept.shape[1], geo.channels), gw)
    for sample in range(kept.shape[0]):
        sample_factors(sample_weight, bw, sample, factors)
        used = index[sample, : np.count_nonzero(index[sample] >= 0)]
        for group in range(geo.groups):
            rows, channels = geo.outputs_of(group), geo.inputs_of(group)
            first, last = np.searchsorted(used, [channels.start, channels.stop])
            if first == last:
                continue
            add = _sparse_adder(maps(gw)[rows], factors[rows], used[first:last] - channels.start)
            _correlate(kept[sample, first:last], maps(gy)[sample, rows], geo.view, buffer, product, add)


def _sparse_adder(gw: Array, factors: Array, channels: Array) -> Callable[[int, Array], None]:
    def add(start: int, tile: Array) -> None:
        rows = slice(start, start + tile.shape[0])
        np.multiply(tile, factors[rows, None, None], out=tile)
        for slot, channel in enumerate(channels):
            np.add(gw[rows, channel], tile[:, slot], out=gw[rows, channel])

    return add


def _pieces(workspace: Array, geo: Geometry, channels: int, gw: Array) -> tuple[Array, Array, Array]:
    pieces = Workspace(workspace)
    sizes = _sizes(geo, channels, gw.shape, gw.itemsize)
    factors, product, buffer = (pieces.take(size, gw.dtype) for size in sizes)
    return factors, product, buffer


def _sizes(geo: Geometry, channels: int, gw: Shape, itemsize: int) -> tuple[int, int, int]:
    product = _product_elements(channels * geo.view.taps, geo.outputs, itemsize)
    return gw[0], product, strip_elements(channels, geo.view, itemsize)


def _weight_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    x = present(inputs[:1])[0]
    (gw,) = present(outputs)
    geo = geometry(x, gw, attrs)
    return sum(aligned(size * itemsize) for size in _sizes(geo, min(x[1], geo.channels), gw, itemsize))


KERNELS = {
    "ConvWeightGrad": Kernel(_conv_weight_grad, _weight_grad_workspace, accumulates=True),
    "ConvWeightGradSparse": Kernel(_conv_weight_grad_sparse, _weight_grad_workspace, accumulates=True),
}
