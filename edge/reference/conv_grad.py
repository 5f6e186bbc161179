"""Parameter gradients of the convolution, from dense maps and from the channels kept of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from .conv import Geometry, geometry, planes
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


def _correlate(
    x: Array, gy: Array, view: Window, buffer: Array, product: Array
) -> Iterator[tuple[slice, Array]]:
    """Yield (outputs, gy correlated with x) in tiles (groups, outputs, channels, taps) the caller may change.

    x is (groups*channels, H, W), gy (groups, outputs, positions).
    """
    groups, channels = gy.shape[0], x.shape[0] // gy.shape[0]
    depth = channels * view.taps
    size = product.size // (depth * groups)
    for positions, columns in gathered(x, view, buffer):
        matrices = columns.reshape(groups, depth, -1).swapaxes(1, 2)
        for start in range(0, gy.shape[1], size):
            part = gy[:, start : start + size, positions]
            tile = product[: groups * part.shape[1] * depth].reshape(groups, part.shape[1], depth)
            np.matmul(part, matrices, out=tile)
            yield slice(start, start + part.shape[1]), tile.reshape(*tile.shape[:2], channels, view.taps)


def _conv_weight_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, gy, sample_weight = present(inputs[:3])
    fw, bw = optional(inputs, 3), optional(inputs, 4)
    (gw,) = present(outputs)
    geo = geometry(x.shape, gw.shape, attrs, gw.itemsize)
    factors, product, buffer = _pieces(workspace, _sizes(geo, gw.itemsize), gw.dtype)
    target = gw.reshape(geo.groups, geo.outputs, geo.channels, geo.view.taps)
    gammas = None if fw is None else geo.of_groups(fw)
    for sample in range(x.shape[0]):
        sample_factors(sample_weight, bw, sample, factors)
        scales = factors.reshape(geo.groups, geo.outputs, 1, 1)
        for groups in geo.chunks():
            maps = planes(x)[sample, geo.inputs_of(groups)]
            tiles = _correlate(maps, geo.of_groups(gy)[sample, groups], geo.view, buffer, product)
            for rows, tile in tiles:
                np.multiply(tile, scales[groups, rows], out=tile)
                if gammas is not None:
                    np.multiply(tile, gammas[sample, groups, None], out=tile)
                np.add(target[groups, rows], tile, out=target[groups, rows])


def _conv_weight_grad_sparse(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    kept, index, gy, sample_weight = present(inputs[:4])
    bw = optional(inputs, 4)
    (gw,) = present(outputs)
    geo = geometry(kept.shape, gw.shape, attrs, gw.itemsize)
    factors, product, buffer = _pieces(workspace, _sparse_sizes(geo, kept.shape, gw.itemsize), gw.dtype)
    target = gw.reshape(geo.groups, geo.outputs, geo.channels, geo.view.taps)
    for sample in range(kept.shape[0]):
        sample_factors(sample_weight, bw, sample, factors)
        scales = factors.reshape(geo.groups, geo.outputs, 1, 1)
        for group, slots, channels in _groups_used(index[sample], geo):
            maps, gradient = planes(kept)[sample, slots], geo.of_groups(gy)[sample, group]
            for rows, tile in _correlate(maps, gradient, geo.view, buffer, product):
                np.multiply(tile, scales[group, rows], out=tile)
                for slot, channel in enumerate(channels):
                    np.add(target[group, rows, channel], tile[:, :, slot], out=target[group, rows, channel])


def _groups_used(index: Array, geo: Geometry) -> Iterator[tuple[slice, slice, Array]]:
    """Yield (group, slots, channels inside the group) of every group that keeps a channel of a sample."""
    used, first = index[: np.count_nonzero(index >= 0)], 0
    while first < used.size:
        group = int(used[first]) // geo.channels
        last = int(np.searchsorted(used, (group + 1) * geo.channels))
        yield slice(group, group + 1), slice(first, last), used[first:last] - group * geo.channels
        first = last


def _pieces(workspace: Array, sizes: tuple[int, int, int], dtype: DTypeLike) -> tuple[Array, Array, Array]:
    pieces = Workspace(workspace)
    factors, product, buffer = (pieces.take(size, dtype) for size in sizes)
    return factors, product, buffer


def _sizes(geo: Geometry, itemsize: int) -> tuple[int, int, int]:
    """Elements of the factors, the product tile and the columns."""
    outputs = geo.outputs if geo.chunk > 1 else _tile_outputs(geo, geo.depth, itemsize)
    return geo.groups * geo.outputs, geo.chunk * outputs * geo.depth, geo.column_elements


def _sparse_sizes(geo: Geometry, kept: Shape, itemsize: int) -> tuple[int, int, int]:
    """The same, one group at a time with at most as many channels as are kept."""
    channels = min(kept[1], geo.channels)
    depth = channels * geo.view.taps
    columns = strip_elements(channels, geo.view, itemsize)
    return geo.groups * geo.outputs, _tile_outputs(geo, depth, itemsize) * depth, columns


def _tile_outputs(geo: Geometry, depth: int, itemsize: int) -> int:
    return min(geo.outputs, max(1, STRIP_BYTES // (depth * itemsize)))


def _weight_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    x = present(inputs[:1])[0]
    (gw,) = present(outputs)
    sizes = _sizes(geometry(x, gw, attrs, itemsize), itemsize)
    return sum(aligned(size * itemsize) for size in sizes)


def _sparse_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    kept = present(inputs[:1])[0]
    (gw,) = present(outputs)
    sizes = _sparse_sizes(geometry(kept, gw, attrs, itemsize), kept, itemsize)
    return sum(aligned(size * itemsize) for size in sizes)


KERNELS = {
    "ConvWeightGrad": Kernel(_conv_weight_grad, _weight_grad_workspace, accumulates=True),
    "ConvWeightGradSparse": Kernel(_conv_weight_grad_sparse, _sparse_workspace, accumulates=True),
}
