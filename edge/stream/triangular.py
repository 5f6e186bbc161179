"""Cholesky factorisation and inversion of lower triangular matrices in place, block by block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
Matrix = NDArray[np.float64]


def cholesky(a: Matrix, strip: Matrix) -> None:
    """Replace a symmetric positive definite matrix by its lower Cholesky factor.

    Args:
        a: (n, n); only the lower triangle is read, above it everything becomes 0.
        strip: (n, BLOCK), overwritten.

    Raises:
        ValueError: the matrix is not positive definite (or not finite).
    """
    size = len(a)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        if start:
            product = strip[: size - start, : end - start]
            np.matmul(a[start:, :start], a[start:end, :start].T, out=product)
            a[start:, start:end] -= product
        _cholesky_block(a[start:end, start:end])
        if end < size:
            product = strip[: size - end, : end - start]
            np.matmul(a[end:, start:end], _inverse_block(a[start:end, start:end]).T, out=product)
            a[end:, start:end] = product
        a[start:end, end:] = 0


def invert_lower(a: Matrix, strip: Matrix) -> None:
    """Replace a lower triangular matrix (0 above the diagonal) by its inverse; `strip` as in `cholesky`."""
    size = len(a)
    for start in reversed(range(0, size, BLOCK)):
        end = min(start + BLOCK, size)
        inverse = _inverse_block(a[start:end, start:end])
        if end < size:
            product = strip[: size - end, : end - start]
            np.matmul(a[end:, end:], a[end:, start:end], out=product)
            np.matmul(product, -inverse, out=a[end:, start:end])
        a[start:end, start:end] = inverse


def _cholesky_block(a: Matrix) -> None:
    for column in range(len(a)):
        row = a[column, :column]
        square = a[column, column] - row @ row
        if not (square > 0 and np.isfinite(square)):
            raise ValueError("the matrix is not positive definite")
        a[column, column] = np.sqrt(square)
        a[column + 1 :, column] -= a[column + 1 :, :column] @ row
        a[column + 1 :, column] /= a[column, column]
        a[column, column + 1 :] = 0


def _inverse_block(a: Matrix) -> Matrix:
    inverse = np.zeros_like(a)
    for row in range(len(a)):
        inverse[row, :row] = -(a[row, :row] @ inverse[:row, :row]) / a[row, row]
        inverse[row, row] = 1 / a[row, row]
    return inverse
