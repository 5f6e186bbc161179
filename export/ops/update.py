"""The gradient step."""

from __future__ import annotations

from ...edge.program import Op
from ..onnx_builder import Builder
from .rule import Rule, integer

STEP = "step"
"""Graph input (int64, shape ()) with the number of the current step, read by update operations."""


def _expand(builder: Builder, op: Op) -> None:
    weight, gradient, alpha = op.inputs
    row = builder.add("Gather", alpha, STEP, axis=0)
    size = builder.add("Gather", row, builder.ints(integer(op, "layer_index")), axis=0)
    builder.add("Sub", weight, builder.add("Mul", size, gradient), out=op.outputs[0])


RULES = (
    Rule(
        "SgdUpdate",
        _expand,
        signature="w, gw, alpha -> w'",
        attributes="layer_index",
        meaning="w - alpha[step, layer_index]*gw, in place; w' is the tensor `updated::NAME`",
    ),
)
