"""Gradients of biases and scales: weighted sums over samples (and of what each sample sums up itself)."""

from __future__ import annotations

from ...edge.program import Op
from ..onnx_builder import Builder, sample_scale
from .rule import Rule, integer


def _total(builder: Builder, op: Op, value: str, like: str, scale: str) -> None:
    """Sum of scale * value over everything but the output's axes; scale (N, 1) or (N, C)."""
    rank, kept = len(builder.shape(like)) + 1, builder.shape(op.outputs[0])
    if integer(op, "axis") == 1:
        scaled = builder.add("Mul", value, builder.over_space(scale, rank))
        builder.total(scaled, (0, *range(2, rank)), out=op.outputs[0])
        return
    between = list(range(1, rank - 1))
    wide = builder.add("Unsqueeze", scale, builder.ints(between)) if between else scale
    scaled = builder.add("Mul", value, wide)
    if kept == (1,):
        builder.reshape(builder.total(scaled, range(rank)), (1,), out=op.outputs[0])
        return
    builder.total(scaled, range(rank - len(kept)), out=op.outputs[0])


def _expand_bias_grad(builder: Builder, op: Op) -> None:
    gy, sample_weight, bw = op.inputs
    _total(builder, op, gy, gy, sample_scale(builder, sample_weight, bw))


def _expand_scale_grad(builder: Builder, op: Op) -> None:
    gy, x, sample_weight, fw, bw = op.inputs
    scale = sample_scale(builder, sample_weight, fw, bw)
    _total(builder, op, builder.add("Mul", gy, x), gy, scale)


RULES = (
    Rule(
        "BiasGrad",
        _expand_bias_grad,
        signature="gy, sample_weight, [bw] -> gb",
        attributes="axis",
        meaning="gb = sum_n sample_weight[n]*bw[n]*(gy[n] summed over space). axis 1: gb is (C,), axis 1 of gy; "
        "axis -1: gb has the last axes of gy, as many as its rank, or is (1,), the sum of all; bw (N, C)",
    ),
    Rule(
        "ScaleGrad",
        _expand_scale_grad,
        signature="gy, x, sample_weight, [fw], [bw] -> gs",
        attributes="axis",
        meaning="gs = sum_n sample_weight[n]*fw[n]*bw[n]*(gy[n]*x[n] summed over space); axis as in BiasGrad",
    ),
)
