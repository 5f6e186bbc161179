"""Squared Mahalanobis distances to class means, sample by sample and class by class."""

from __future__ import annotations

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shapes, Workspace, aligned, present


def _mahalanobis(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """y[n, c] = -|F_c (x_n - m_c)|^2 of x (N, D), means (C, D), factors (C, D, D)."""
    x, means, factors = present(inputs)
    (y,) = present(outputs)
    pieces = Workspace(workspace)
    away, whitened = (pieces.take(x.shape[1], x.dtype) for _ in range(2))
    for sample, row in zip(x, y, strict=True):
        for index, (mean, factor) in enumerate(zip(means, factors, strict=True)):
            np.subtract(sample, mean, out=away)
            np.matmul(factor, away, out=whitened)
            row[index] = -np.dot(whitened, whitened)


def _workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    x = present(inputs)[0]
    return 2 * aligned(x[1] * itemsize)


KERNELS = {"Mahalanobis": Kernel(_mahalanobis, _workspace)}
