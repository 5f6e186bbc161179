"""PReLU (He et al. 2015): y = x above zero, slope * x elsewhere; slope (C,) along axis 1, or (1,) for all."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shape, Shapes, Workspace, aligned, present

CHUNK = 2048  # elements of one channel treated at once


def _rows(slope: Array, *arrays: Array) -> Iterator[tuple[int, int, list[Array]]]:
    """Yield (sample, index into slope, the elements of every array that it multiplies)."""
    for sample, values in enumerate(zip(*arrays, strict=True)):
        rows = [value.reshape(slope.size, -1) for value in values]
        for channel in range(slope.size):
            yield sample, channel, [row[channel] for row in rows]


def _chunks(size: int) -> Iterator[slice]:
    for start in range(0, size, CHUNK):
        yield slice(start, start + CHUNK)


def _prelu(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, slope = present(inputs)
    (y,) = present(outputs)
    low = Workspace(workspace).take(_chunk(x.shape, slope.shape), y.dtype)
    for _, channel, (values, result) in _rows(slope, x, y):
        for part in _chunks(values.size):
            below = low[: values[part].size]
            np.minimum(values[part], 0, out=below)
            np.multiply(below, slope[channel], out=below)
            np.maximum(values[part], 0, out=result[part])
            np.add(result[part], below, out=result[part])


def _prelu_input_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    gy, x, slope = present(inputs)
    (gx,) = present(outputs)
    pieces, size = Workspace(workspace), _chunk(gx.shape, slope.shape)
    factors, mask = pieces.take(size, gx.dtype), pieces.take(size, np.bool_)
    for _, channel, (gradient, values, result) in _rows(slope, gy, x, gx):
        for part in _chunks(values.size):
            factor, above = factors[: values[part].size], mask[: values[part].size]
            np.greater(values[part], 0, out=above)
            factor.fill(slope[channel])
            np.copyto(factor, 1, where=above)
            np.multiply(gradient[part], factor, out=result[part])


def _prelu_slope_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """gs += sum_n sample_weight[n] * (gy[n] * min(x[n], 0) summed over what the slope multiplies)."""
    gy, x, sample_weight = present(inputs)
    (gs,) = present(outputs)
    low = Workspace(workspace).take(_chunk(x.shape, gs.shape), gs.dtype)
    for sample, channel, (values, gradient) in _rows(gs, x, gy):
        for part in _chunks(values.size):
            below = low[: values[part].size]
            np.minimum(values[part], 0, out=below)
            gs[channel] += sample_weight[sample] * np.dot(below, gradient[part])


def _chunk(x: Shape, slope: Shape) -> int:
    return min(CHUNK, prod(x[1:]) // prod(slope))


def _prelu_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    x, slope = present(inputs)
    return aligned(itemsize * _chunk(x, slope))


def _input_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    _, x, slope = present(inputs)
    return aligned(itemsize * _chunk(x, slope)) + aligned(_chunk(x, slope))


def _slope_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    x, (gs,) = present(inputs)[1], present(outputs)
    return aligned(itemsize * _chunk(x, gs))


KERNELS = {
    "PRelu": Kernel(_prelu, _prelu_workspace, in_place={0: 0}),
    "PReluInputGrad": Kernel(_prelu_input_grad, _input_grad_workspace, in_place={0: 0}),
    "PReluSlopeGrad": Kernel(_prelu_slope_grad, _slope_grad_workspace, accumulates=True),
}
