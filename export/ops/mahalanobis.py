"""The head of Simple CNAPs: squared Mahalanobis distances to class means. Devices compute its parameters."""

from __future__ import annotations

from ...edge.program import Op
from ..onnx_builder import Builder
from .rule import Rule


def _expand(builder: Builder, op: Op) -> None:
    x, means, factors = op.inputs
    away = builder.add("Sub", builder.add("Unsqueeze", x, builder.ints([1])), means)
    whitened = builder.add("MatMul", factors, builder.add("Unsqueeze", away, builder.ints([-1])))
    distance = builder.total(builder.add("Mul", whitened, whitened), [2, 3])
    builder.add("Neg", distance, out=op.outputs[0])


RULES = (
    Rule(
        "Mahalanobis",
        _expand,
        layer_kind="mahalanobis",
        signature="x, means, factors -> y",
        meaning="y[n,c] = -(the squared length of factors[c] (x[n] - means[c])); x (N, D), means (C, D), factors "
        "(C, D, D); no gradient",
    ),
)
