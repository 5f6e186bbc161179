"""Cases for the kernels that combine, pool, move and resize values."""

from __future__ import annotations

import numpy as np

from .kernel_cases import CHANNELS, MAP, SAMPLES, SIDE, Case, Normal, garbage

MEAN = {"axes": [2, 3], "keepdims": True}
AVERAGE = {"kernel": [3, 2], "strides": [2, 3], "pads": [1, 0, 0, 1], "count_include_pad": 0}
RESIZE = {"mode": "linear", "coordinates": "half_pixel"}
TOKENS, WIDTH = 64, 48


def _arithmetic(normal: Normal) -> list[Case]:
    x, gate, row, gy = (
        normal(*MAP),
        normal(SAMPLES, CHANNELS, 1, 1),
        normal(SAMPLES, 1, 1, SIDE),
        normal(*MAP),
    )
    return [
        Case("Sub", [row, x], [garbage(MAP, x.dtype)], {}),
        Case("Mul", [x, gate], [garbage(MAP, x.dtype)], {}),
        Case("Scale", [x], [garbage(MAP, x.dtype)], {"factor": -0.5, "offset": 2}),
        Case("SumTo", [gy], [garbage(gate.shape, x.dtype)], {}),
        Case("MulGrad", [gy, x], [garbage(gate.shape, x.dtype)], {}),
    ]


def _means(normal: Normal) -> list[Case]:
    x, pooled = normal(*MAP), normal(SAMPLES, CHANNELS, 1, 1)
    small = normal(SAMPLES, CHANNELS, 12, 8)
    return [
        Case("Mean", [x], [garbage(pooled.shape, x.dtype)], MEAN),
        Case("MeanGrad", [pooled], [garbage(MAP, x.dtype)], MEAN),
        Case("AveragePool", [x], [garbage(small.shape, x.dtype)], AVERAGE),
        Case("AveragePoolGrad", [small], [garbage(MAP, x.dtype)], AVERAGE),
    ]


def _moves(normal: Normal) -> list[Case]:
    x, part = normal(*MAP), normal(SAMPLES, CHANNELS, 9, SIDE)
    inner = {"starts": [0, 5, 0], "ends": [CHANNELS, 14, SIDE]}
    return [
        Case("Transpose", [x], [garbage((SAMPLES, SIDE, SIDE, CHANNELS), x.dtype)], {"perm": [0, 2, 3, 1]}),
        Case("Concat", [x, part], [garbage((SAMPLES, CHANNELS, SIDE + 9, SIDE), x.dtype)], {"axis": 2}),
        Case("Slice", [x], [garbage(part.shape, x.dtype)], inner),
        Case("Pad", [part], [garbage(MAP, x.dtype)], {"before": [0, 5, 0], "after": [0, 9, 0], "value": 0.5}),
    ]


def _resize(normal: Normal) -> list[Case]:
    x, small = normal(*MAP), normal(SAMPLES, CHANNELS, 11, 9)
    return [
        Case("Resize", [small], [garbage(MAP, x.dtype)], RESIZE),
        Case("ResizeGrad", [x], [garbage(small.shape, x.dtype)], RESIZE),
    ]


def _products(normal: Normal) -> list[Case]:
    a, b = normal(SAMPLES, 4, WIDTH, TOKENS), normal(SAMPLES, 4, TOKENS, WIDTH)
    y = garbage((SAMPLES, 4, TOKENS, TOKENS), np.asarray(a).dtype)
    return [Case("MatMul", [a, b], [y], {"transA": 1, "transB": 1})]


MAKERS = (_arithmetic, _means, _moves, _resize, _products)
