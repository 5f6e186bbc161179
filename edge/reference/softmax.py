"""Softmax over the last axis, a block of rows at a time, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shape, Shapes, Workspace, aligned, present

ROWS = 256  # rows treated at once: one number of workspace each


def _blocks(workspace: Array, like: Array, *arrays: Array) -> Iterator[tuple[Array, list[Array]]]:
    """Yield (one number per row, as a column; the rows of every array), block by block."""
    width = like.shape[-1]
    flat = [array.reshape(-1, width) for array in arrays]
    column = Workspace(workspace).take(_rows_at_once(like.shape), like.dtype)
    for start in range(0, len(flat[0]), column.size):
        rows = [array[start : start + column.size] for array in flat]
        yield column[: len(rows[0]), None], rows


def _softmax(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (x,) = present(inputs)
    (y,) = present(outputs)
    for column, (source, target) in _blocks(workspace, y, x, y):
        np.max(source, axis=1, out=column, keepdims=True)
        np.subtract(source, column, out=target)
        np.exp(target, out=target)
        np.sum(target, axis=1, out=column, keepdims=True)
        np.divide(target, column, out=target)


def _softmax_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """gx = y * (gy - sum(gy * y))."""
    gy, y = present(inputs)
    (gx,) = present(outputs)
    for column, (gradient, probability, target) in _blocks(workspace, gx, gy, y, gx):
        np.matmul(gradient[:, None, :], probability[:, :, None], out=column[:, :, None])
        np.subtract(gradient, column, out=target)
        np.multiply(target, probability, out=target)


def _rows_at_once(shape: Shape) -> int:
    return min(ROWS, max(1, prod(shape[1:-1])))


def _workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (result,) = present(outputs)
    return aligned(itemsize * _rows_at_once(result))


KERNELS = {
    "Softmax": Kernel(_softmax, _workspace, in_place={0: 0}),
    "SoftmaxGrad": Kernel(_softmax_grad, _workspace, in_place={0: 0}),
}
