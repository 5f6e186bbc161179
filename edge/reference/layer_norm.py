"""Layer normalisation (Ba et al. 2016) over trailing axes and its input gradient, sample by sample.

x is (N, ..., D) with D the `dims` last axes; a sample is a matrix (T, D) of rows, each normalised by itself.
"""

from __future__ import annotations

from math import prod

import numpy as np

from .kernel import (
    Array,
    Arrays,
    Attrs,
    Kernel,
    Shape,
    Shapes,
    Workspace,
    aligned,
    integer,
    number,
    present,
)

CHUNK = 2048  # elements of the buffer that subtracts a multiple of x_hat


def _sizes(x: Shape, attrs: Attrs) -> tuple[int, int]:
    """Rows of a sample, and elements of a row."""
    split = len(x) - integer(attrs, "dims")
    if not 1 <= split < len(x):
        raise ValueError(f"attribute 'dims' must be 1 to {len(x) - 1} for shape {x}, got {attrs['dims']}")
    return prod(x[1:split]), prod(x[split:])


def _layer_norm(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, scale, bias = present(inputs)
    y, x_hat, inv_std = outputs
    result = y if x_hat is None else x_hat
    if result is None:
        raise ValueError("LayerNorm: neither y nor x_hat is wanted")
    size, eps = _sizes(x.shape, attrs), number(attrs, "eps")
    column = Workspace(workspace).take(size[0], result.dtype)
    for sample in range(x.shape[0]):
        normalised = result[sample].reshape(size)
        _normalise(x[sample].reshape(size), normalised, eps, column)
        if inv_std is not None:
            np.copyto(inv_std.reshape(-1, size[0])[sample], column)
        if y is not None:
            target = y[sample].reshape(size)
            np.multiply(normalised, scale.reshape(-1), out=target)
            np.add(target, bias.reshape(-1), out=target)


def _normalise(x: Array, x_hat: Array, eps: float, inv_std: Array) -> None:
    """Write (x - mean) / std of every row into x_hat (x itself, perhaps), and 1 / std into inv_std (T,)."""
    np.mean(x, axis=1, out=inv_std)
    np.subtract(x, inv_std[:, None], out=x_hat)
    np.matmul(x_hat[:, None], x_hat[:, :, None], out=inv_std[:, None, None])
    np.multiply(inv_std, x.dtype.type(1 / x.shape[1]), out=inv_std)
    np.add(inv_std, x.dtype.type(eps), out=inv_std)
    np.sqrt(inv_std, out=inv_std)
    np.reciprocal(inv_std, out=inv_std)
    np.multiply(x_hat, inv_std[:, None], out=x_hat)


def _layer_norm_input_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """gx = inv_std * (g - mean(g) - x_hat * mean(g * x_hat)) with g = scale * gy."""
    gy, x_hat, inv_std, scale = present(inputs)
    (gx,) = present(outputs)
    size = _sizes(gx.shape, attrs)
    pieces = Workspace(workspace)
    column, buffer = pieces.take(size[0], gx.dtype), pieces.take(_buffer_elements(size), gx.dtype)
    for sample in range(gx.shape[0]):
        gradient, normalised = gx[sample].reshape(size), x_hat[sample].reshape(size)
        np.multiply(gy[sample].reshape(size), scale.reshape(-1), out=gradient)
        np.mean(gradient, axis=1, out=column)
        np.subtract(gradient, column[:, None], out=gradient)
        np.matmul(gradient[:, None], normalised[:, :, None], out=column[:, None, None])
        np.multiply(column, gx.dtype.type(1 / size[1]), out=column)
        _subtract_scaled(gradient, normalised, column, buffer)
        np.multiply(gradient, inv_std.reshape(-1, size[0], 1)[sample], out=gradient)


def _subtract_scaled(target: Array, values: Array, factors: Array, buffer: Array) -> None:
    """Subtract factors (T,) times values (T, D) from target, a buffer of elements at a time."""
    width = min(values.shape[1], buffer.size)
    height = buffer.size // width
    for top in range(0, values.shape[0], height):
        for left in range(0, values.shape[1], width):
            place = (slice(top, top + height), slice(left, left + width))
            part = values[place]
            product = buffer[: part.size].reshape(part.shape)
            np.multiply(part, factors[place[0], None], out=product)
            np.subtract(target[place], product, out=target[place])


def _buffer_elements(size: tuple[int, int]) -> int:
    return min(size[0] * size[1], CHUNK)


def _workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    return itemsize * _sizes(present(inputs[:1])[0], attrs)[0]


def _input_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    size = _sizes(present(outputs)[0], attrs)
    return aligned(itemsize * size[0]) + itemsize * _buffer_elements(size)


KERNELS = {
    "LayerNorm": Kernel(_layer_norm, _workspace, in_place={1: 0, 0: 0}),
    "LayerNormInputGrad": Kernel(_layer_norm_input_grad, _input_grad_workspace, in_place={0: 0}),
}
