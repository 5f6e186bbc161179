"""Sums, differences and products of two values, whose axes of length 1 are repeated; scaling by constants."""

from __future__ import annotations

from math import prod

import numpy as np

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
    number,
    present,
)


def _elementwise(function: np.ufunc) -> Kernel:
    """A kernel for y = function(a, b), each operand repeated along its axes of length 1."""

    def compute(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
        a, b = present(inputs)
        (y,) = present(outputs)
        if a.shape == y.shape:
            function(a, b, out=y)
            return
        # y may lie on a, which is smaller: last sample first, so that none is covered before it was read
        one = Workspace(workspace).take(prod(a.shape[1:]), a.dtype).reshape(a.shape[1:])
        for sample in reversed(range(y.shape[0])):
            np.copyto(one, a[sample])
            function(one, b[sample], out=y[sample])

    return Kernel(compute, _elementwise_workspace, in_place={0: 0})


def _elementwise_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    a = present(inputs)[0]
    (y,) = present(outputs)
    return 0 if a[1:] == y[1:] else itemsize * prod(a[1:])


def _scale(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """y = factor * x + offset."""
    (x,) = present(inputs)
    (y,) = present(outputs)
    factor, offset = number(attrs, "factor"), number(attrs, "offset")
    np.multiply(x, x.dtype.type(factor), out=y)
    if offset:
        np.add(y, y.dtype.type(offset), out=y)


def _sum_to(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """gx = gy summed along the axes where gx has length 1."""
    (gy,) = present(inputs)
    (gx,) = present(outputs)
    np.add.reduce(gy, axis=_summed(gy.shape, gx.shape), keepdims=True, out=gx)


def _mul_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """gx = gy * other summed along the axes where gx has length 1, a few rows of a sample at a time."""
    gy, other = present(inputs)
    (gx,) = present(outputs)
    if gx.shape == gy.shape:
        np.multiply(gy, other, out=gx)
        return
    part, axes = gx.shape[1:], _summed(gy.shape[1:], gx.shape[1:])
    pieces = Workspace(workspace)
    total, partial = (pieces.take(prod(part), gx.dtype).reshape(part) for _ in range(2))
    buffer = pieces.take(_tile_elements(gy.shape, gx.itemsize), gx.dtype)
    rows = buffer.size // prod(gy.shape[2:])
    for sample in range(gy.shape[0]):
        total.fill(0)
        for start in range(0, gy.shape[1], rows):
            source = _rows(gy[sample], start, rows)
            tile = buffer[: source.size].reshape(source.shape)
            np.multiply(source, _rows(other[sample], start, rows), out=tile)
            target = _rows(total, start, rows)
            found = partial[: target.shape[0]]
            np.add.reduce(tile, axis=axes, keepdims=True, out=found)
            np.add(target, found, out=target)
        np.copyto(gx[sample], total)


def _rows(values: Array, start: int, count: int) -> Array:
    """The rows from `start` on; a first axis of length 1 stands for all of them."""
    return values if values.shape[0] == 1 else values[start : start + count]


def _summed(wide: Shape, narrow: Shape) -> tuple[int, ...]:
    return tuple(axis for axis, (a, b) in enumerate(zip(wide, narrow, strict=True)) if a != b)


def _tile_elements(gy: Shape, itemsize: int) -> int:
    row = prod(gy[2:])
    return row * min(gy[1], max(1, STRIP_BYTES // (row * itemsize)))


def _mul_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    gy = present(inputs)[0]
    (gx,) = present(outputs)
    if gx[1:] == gy[1:]:
        return 0
    return 2 * aligned(itemsize * prod(gx[1:])) + itemsize * _tile_elements(gy, itemsize)


KERNELS = {
    "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract),
    "Mul": _elementwise(np.multiply),
    "Scale": Kernel(_scale, in_place={0: 0}),
    "SumTo": Kernel(_sum_to),
    "MulGrad": Kernel(_mul_grad, _mul_grad_workspace, in_place={0: 0}),
}
