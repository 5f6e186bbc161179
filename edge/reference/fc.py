"""The fully connected layer and its gradients: x (N, ..., I), w (O, I), y (N, ..., O).

The axes between the first and the last are places (tokens) that share the weight.
"""

from __future__ import annotations

import numpy as np

from .kernel import STRIP_BYTES, Array, Arrays, Attrs, Kernel, Shapes, Workspace, aligned, optional, present
from .sums import sample_factors


def _fc(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, w = present(inputs[:2])
    b = optional(inputs, 2)
    (y,) = present(outputs)
    np.matmul(x.reshape(-1, w.shape[1]), w.T, out=y.reshape(-1, w.shape[0]))
    if b is not None:
        np.add(y, b, out=y)


def _fc_input_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    gy, w = present(inputs)
    (gx,) = present(outputs)
    np.matmul(gy.reshape(-1, w.shape[0]), w, out=gx.reshape(-1, w.shape[1]))


def _fc_weight_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, gy, sample_weight = present(inputs[:3])
    fw, bw = optional(inputs, 3), optional(inputs, 4)
    (gw,) = present(outputs)
    height, width = gw.shape
    tile_rows = _tile_rows(gw.shape, gw.itemsize)
    pieces = Workspace(workspace)
    factors = pieces.take(height, gw.dtype)
    tiles = pieces.take(tile_rows * width, gw.dtype).reshape(tile_rows, width)
    for sample in range(x.shape[0]):
        sample_factors(sample_weight, bw, sample, factors)
        places, gradients = x[sample].reshape(-1, width), gy[sample].reshape(-1, height)
        if len(places) == 1:
            np.multiply(factors, gradients[0], out=factors)
        for start in range(0, height, tile_rows):
            rows = slice(start, start + tile_rows)
            target = gw[rows]
            tile = tiles[: target.shape[0]]
            if len(places) == 1:  # an outer product, three times faster than as a matrix product
                np.multiply(factors[rows, None], places[0], out=tile)
            else:
                np.matmul(gradients[:, rows].T, places, out=tile)
                np.multiply(tile, factors[rows, None], out=tile)
            if fw is not None:
                np.multiply(tile, fw[sample], out=tile)
            np.add(target, tile, out=target)


def _tile_rows(gw: tuple[int, ...], itemsize: int) -> int:
    return min(gw[0], max(1, STRIP_BYTES // (gw[1] * itemsize)))


def _weight_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (gw,) = present(outputs)
    return aligned(gw[0] * itemsize) + aligned(_tile_rows(gw, itemsize) * gw[1] * itemsize)


def _fc_weight_grad_sparse(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    kept, index, gy, sample_weight = present(inputs[:4])
    bw = optional(inputs, 4)
    (gw,) = present(outputs)
    pieces = Workspace(workspace)
    factors, column = pieces.take(gw.shape[0], gw.dtype), pieces.take(gw.shape[0], gw.dtype)
    for sample in range(kept.shape[0]):
        sample_factors(sample_weight, bw, sample, factors)
        np.multiply(factors, gy[sample], out=factors)
        for value, channel in zip(kept[sample], index[sample], strict=True):
            if channel >= 0:
                np.multiply(factors, value, out=column)
                np.add(gw[:, channel], column, out=gw[:, channel])


def _sparse_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (gw,) = present(outputs)
    return 2 * aligned(gw[0] * itemsize)


KERNELS = {
    "Fc": Kernel(_fc),
    "FcInputGrad": Kernel(_fc_input_grad),
    "FcWeightGrad": Kernel(_fc_weight_grad, _weight_grad_workspace, accumulates=True),
    "FcWeightGradSparse": Kernel(_fc_weight_grad_sparse, _sparse_workspace, accumulates=True),
}
