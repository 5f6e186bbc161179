"""Multiply-accumulates of one operation for one sample (p-Meta eq. 18 counts the same)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Shape = Sequence[int]


def _conv(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(outputs[0]) * math.prod(inputs[1][1:])


def _conv_input_grad(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _conv_weight_grad(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[1]) * math.prod(outputs[0][1:])


def _conv_weight_grad_sparse(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[2]) * inputs[0][1] * math.prod(outputs[0][2:])


def _fc(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(outputs[0]) * inputs[1][1]


def _fc_input_grad(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[0]) * inputs[1][1]


def _fc_weight_grad(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[1]) * outputs[0][1]


def _fc_weight_grad_sparse(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(outputs[0])


def _norm(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[0])


def _affine(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[0]) if inputs[1] else 0


def _attention(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[1]) + math.prod(inputs[3])


def _mahalanobis(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    return math.prod(inputs[2])


def _matmul(inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """M*K*P for every pair of matrices (M, K) and (K, P), whichever of them is stored transposed."""
    lead = math.prod(outputs[0][:-2])
    return math.isqrt(math.prod(math.prod(shape) for shape in (*inputs, outputs[0])) // lead)


_MACS: dict[str, Callable[[Sequence[Shape], Sequence[Shape]], int]] = {
    "Conv": _conv,
    "ConvInputGrad": _conv_input_grad,
    "ConvWeightGrad": _conv_weight_grad,
    "ConvWeightGradSparse": _conv_weight_grad_sparse,
    "Fc": _fc,
    "FcInputGrad": _fc_input_grad,
    "FcWeightGrad": _fc_weight_grad,
    "FcWeightGradSparse": _fc_weight_grad_sparse,
    "Mahalanobis": _mahalanobis,
    "MatMul": _matmul,
    "GroupNorm": _norm,
    "GroupNormInputGrad": _norm,
    "LayerNorm": _norm,
    "LayerNormInputGrad": _norm,
    "Affine": _affine,
    "AffineInputGrad": _norm,
    "ScaleGrad": _norm,
    "ScaleGradSparse": _norm,
    "ChannelAttention": _attention,
}


def step_macs(kind: str, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> int:
    """Return the multiply-accumulates of one operation; shapes are those of a batch of one.

    Operations without products (ReLU, pooling, sums, reshapes) count as zero.
    """
    rule = _MACS.get(kind)
    return rule(inputs, outputs) if rule else 0
