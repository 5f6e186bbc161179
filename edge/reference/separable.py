"""Linear maps of pictures that treat rows and columns apart: y = A x B^T with one small matrix per axis.

Average pooling and resizing are such maps; their gradients are the same with the matrices transposed. A matrix
is given by its entries (row, column, weight); entries at the same place add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from math import prod

import numpy as np

from .kernel import STRIP_BYTES, Array, Arrays, Attrs, Kernel, Shape, Shapes, Workspace, aligned, present

Entries = Iterable[tuple[int, int, float]]
AxisEntries = Callable[[int, int, int, Attrs], Entries]


def separable(entries: AxisEntries) -> tuple[Kernel, Kernel]:
    """Return the kernels (x -> y, gy -> gx) of a map of x (N, C, L) or (N, C, H, W).

    Args:
        entries: `entries(axis, inputs, outputs, attrs)`: of the (outputs, inputs) matrix of a spatial axis,
            of which the first has number 0.
    """
    kernels = []
    for transposed in (False, True):
        work = _Separable(entries, transposed)
        kernels.append(Kernel(work.compute, work.workspace_bytes))
    return kernels[0], kernels[1]


class _Separable:
    """A separable map, or (transposed) its gradient."""

    def __init__(self, entries: AxisEntries, transposed: bool) -> None:
        self._entries = entries
        self._transposed = transposed

    def compute(self, inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
        (x,), (y,) = present(inputs), present(outputs)
        pieces = Workspace(workspace)
        *above, right = self._matrices(x, y, attrs, pieces)
        if not above:
            np.matmul(x.reshape(-1, x.shape[-1]), right.T, out=y.reshape(-1, y.shape[-1]))
            return
        count = _chunk_maps(x.shape, y.shape, x.itemsize)
        middle = pieces.take(count * y.shape[2] * x.shape[3], x.dtype).reshape(count, y.shape[2], x.shape[3])
        source, target = x.reshape(-1, *x.shape[2:]), y.reshape(-1, *y.shape[2:])
        for start in range(0, len(source), count):
            part = source[start : start + count]
            np.matmul(above[0], part, out=middle[: len(part)])
            np.matmul(middle[: len(part)], right.T, out=target[start : start + count])

    def _matrices(self, x: Array, y: Array, attrs: Attrs, pieces: Workspace) -> list[Array]:
        """The matrix (outputs, inputs) of every spatial axis, in the workspace."""
        found = []
        for axis, (before, after) in enumerate(self._sizes(x.shape, y.shape)):
            matrix = pieces.take(before * after, x.dtype).reshape(after, before)
            filled(matrix, self._entries(axis, before, after, attrs))
            found.append(matrix.T if self._transposed else matrix)
        return found

    def _sizes(self, x: Shape, y: Shape) -> list[tuple[int, int]]:
        """(inputs, outputs) of the map along every spatial axis."""
        pair = (y, x) if self._transposed else (x, y)
        return list(zip(pair[0][2:], pair[1][2:], strict=True))

    def workspace_bytes(self, inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
        (x,), (y,) = present(inputs), present(outputs)
        matrices = sum(aligned(itemsize * a * b) for a, b in self._sizes(x, y))
        if len(x) == 3:
            return matrices
        return matrices + itemsize * _chunk_maps(x, y, itemsize) * y[2] * x[3]


def _chunk_maps(x: Shape, y: Shape, itemsize: int) -> int:
    """Maps per run of the two products: their middle results take about STRIP_BYTES."""
    return min(x[1], max(1, STRIP_BYTES // (itemsize * prod((y[2], x[3])))))


def filled(matrix: Array, entries: Entries) -> Array:
    """Write a matrix from its entries and return it."""
    matrix.fill(0)
    for row, column, weight in entries:
        matrix[row, column] += weight
    return matrix


def window_entries(size: int, out: int, kernel: int, stride: int, pad: int, padding_counts: bool) -> Entries:
    """Yield the weights of the mean over a window; padding is 0 and counts as an element or does not."""
    for row in range(out):
        first = row * stride - pad
        real = range(max(first, 0), min(first + kernel, size))
        for column in real:
            yield row, column, 1 / (kernel if padding_counts else len(real))


COORDINATES: dict[str, Callable[[int, int, int], Fraction]] = {
    "asymmetric": lambda i, size, out: Fraction(i * size, out),
    "half_pixel": lambda i, size, out: Fraction((2 * i + 1) * size, 2 * out) - Fraction(1, 2),
    "align_corners": lambda i, size, out: Fraction(i * (size - 1), max(out - 1, 1)),
}
"""Where output i of `out` lies on an axis of `size` inputs (ONNX Resize, its sizes given)."""


def nearest_entries(size: int, out: int, coordinates: str) -> Entries:
    """Yield 1 at the last input that is not beyond the output's place (ONNX: `nearest_mode` floor)."""
    for row in range(out):
        place = COORDINATES[coordinates](row, size, out)
        yield row, max(place // 1, 0), 1.0


def linear_entries(size: int, out: int, coordinates: str) -> Entries:
    """Yield the weights of the two inputs around the output's place; beyond an end its input has all."""
    for row in range(out):
        place = min(max(COORDINATES[coordinates](row, size, out), Fraction(0)), Fraction(size - 1))
        before = place // 1
        yield row, before, float(before + 1 - place)
        if place > before:
            yield row, before + 1, float(place - before)
