"""Cases of the kernels over the last axes: layer normalisation, scale and shift, a parameter per sample."""

from __future__ import annotations

import numpy as np

from .kernel_cases import SAMPLES, Case, Normal, garbage

PLACES, WIDTH = 50, 333  # one sample is 65 KiB in float32


def _layer_norm(normal: Normal) -> list[Case]:
    x, gy = normal(SAMPLES, PLACES, WIDTH), normal(SAMPLES, PLACES, WIDTH)
    scale, bias, inv_std = normal(WIDTH), normal(WIDTH), np.abs(normal(SAMPLES, PLACES))
    outputs = [garbage(array.shape, array.dtype) for array in (x, x, inv_std)]
    gx = garbage(x.shape, x.dtype)
    return [
        Case("LayerNorm", [x, scale, bias], [*outputs], {"dims": 1, "eps": 1e-5}),
        Case("LayerNormInputGrad", [gy, x, inv_std, scale], [gx], {"dims": 1}),
    ]


def _affine(normal: Normal) -> list[Case]:
    x, scale, bias = normal(SAMPLES, PLACES, WIDTH), normal(PLACES, WIDTH), normal(PLACES, WIDTH)
    y, gx = garbage(x.shape, x.dtype), garbage(x.shape, x.dtype)
    return [
        Case("Affine", [x, scale, bias], [y], {"axis": -1}),
        Case("AffineInputGrad", [x, scale], [gx], {"axis": -1}),
        Case("Expand", [scale], [garbage(x.shape, x.dtype)], {}),
    ]


def _mahalanobis(normal: Normal) -> list[Case]:
    x, means, factors = normal(SAMPLES, WIDTH), normal(6, WIDTH), normal(6, WIDTH, WIDTH) / np.float32(WIDTH)
    return [Case("Mahalanobis", [x, means, factors], [garbage((SAMPLES, 6), x.dtype)], {})]


MAKERS = (_layer_norm, _affine, _mahalanobis)
