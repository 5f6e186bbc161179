"""Meta attention: which channels of a layer's gradient count, per sample (p-Meta, sec. 3.3 and Alg. 1)."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from ...edge.program import Op
from ..onnx_builder import Builder
from .rule import Rule, integer, number

RMS_FLOOR = 1e-12


def _expand(builder: Builder, op: Op) -> None:
    x, w1, b1, w2, b2, keep = op.inputs
    shape, axis = builder.shape(x), integer(op, "axis")
    channels, rank = shape[0 if axis == 1 else -1], len(shape) + 1
    others = range(2, rank) if axis == 1 else range(1, rank - 1)
    pooled = builder.mean(x, others, keep=False) if rank > 2 else x
    if op.attrs["normalize"] == "rms":
        pooled = _by_rms(builder, pooled)
    hidden = builder.add("Relu", builder.add("Gemm", pooled, w1, b1, transB=1))
    weights = builder.add("Softmax", builder.add("Gemm", hidden, w2, b2, transB=1), axis=1)
    keep = keep or _selection(builder, op, weights, channels)
    kept = builder.add("Mul", weights, keep) if keep else weights
    sums = builder.add("ReduceSum", kept, builder.ints([1]), keepdims=1)
    scaled = builder.add("Mul", kept, builder.floats(float(channels)))
    builder.add("Div", scaled, sums, out=op.outputs[0])


def _by_rms(builder: Builder, pooled: str) -> str:
    rms = builder.add("Sqrt", builder.mean(builder.add("Mul", pooled, pooled), [1]))
    return builder.add("Div", pooled, builder.add("Add", rms, builder.floats(RMS_FLOOR)))


def _selection(builder: Builder, op: Op, weights: str, channels: int) -> str:
    """0/1 per channel, (N, C); "" where nothing is ever clipped.

    In ascending order (TopK puts the lower index first among equals) position j falls while what lies
    before it sums to less than rho, or to respect the cap; the last position always stays.
    """
    rho = number(op, "rho")
    cap = channels if op.attrs["cap"] is None else integer(op, "cap")
    if rho == 0 and cap >= channels:
        return ""
    values, order = builder.fresh("ascending"), builder.fresh("order")
    topk = {"axis": 1, "largest": 0, "sorted": 1}
    builder.add_many("TopK", (weights, builder.ints([channels])), (values, order), topk)
    before = builder.add("CumSum", values, builder.ints(1), exclusive=1)
    falls = builder.add("Less", before, builder.floats(rho))
    position = np.arange(channels)
    falls = builder.add("Or", falls, builder.bools(position < channels - cap))
    stays = builder.add("Not", builder.add("And", falls, builder.bools(position < channels - 1)))
    zeros = builder.add("Mul", weights, builder.floats(0.0))
    return builder.add(
        "ScatterElements", zeros, order, builder.add("Cast", stays, to=TensorProto.FLOAT), axis=1
    )


RULES = (
    Rule(
        "ChannelAttention",
        _expand,
        signature="x, w1, b1, w2, b2, [keep] -> gamma",
        attributes='rho, cap (or null), normalize ("none" or "rms"), axis (1 or -1)',
        meaning="per sample: p = mean of x over all axes but its channels, which are axis 1 or the last; "
        '"rms": p / (rms over channels + 1e-12); pi = softmax(w2 relu(w1 p + b1) + b2); clip and normalise; '
        "gamma (N, C). With `keep` (N, C) of 0/1 given, that selection is used instead of clipping",
    ),
)
