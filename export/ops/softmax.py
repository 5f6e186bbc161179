"""Softmax over the last axis."""

from __future__ import annotations

from onnx import NodeProto

from ...edge.program import Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, attributes
from ..tape import Tape
from .rule import Match, Rule


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "Softmax":
        return None
    rank, axis = len(graph.shape(node.input[0])), attributes(node).get("axis", -1)
    if axis not in (-1, rank - 1) or rank < 2:
        raise ExportError(
            f"node {node.name!r} (Softmax) of module {graph.scope(node)!r}: axis {axis} of {rank} is not supported, "
            "only the last; permute that axis to the end before, and back after"
        )
    return Match((node.input[0],))


def _gradient(tape: Tape, op: Op) -> None:
    (y,) = op.outputs
    tape.to_input(op, "SoftmaxGrad", (tape.gradient(y), y))


def _expand(builder: Builder, op: Op) -> None:
    builder.add("Softmax", op.inputs[0], out=op.outputs[0], axis=-1)


def _expand_grad(builder: Builder, op: Op) -> None:
    gy, y = op.inputs
    total = builder.add("ReduceSum", builder.add("Mul", gy, y), builder.ints([-1]), keepdims=1)
    builder.add("Mul", builder.add("Sub", gy, total), y, out=op.outputs[0])


RULES = (
    Rule(
        "Softmax",
        _expand,
        _match,
        _gradient,
        signature="x -> y",
        meaning="y = exp(x) / sum of exp(x), over the last axis",
    ),
    Rule(
        "SoftmaxGrad",
        _expand_grad,
        signature="gy, y -> gx",
        meaning="gx = y * (gy - sum of gy*y over the last axis)",
    ),
)
