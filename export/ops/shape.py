"""Operations that move values without computing: flatten; and the sum of two values."""

from __future__ import annotations

from math import prod

from onnx import NodeProto

from ...edge.program import BATCH, Op
from ..forward_graph import ForwardGraph
from ..onnx_builder import Builder
from ..tape import Tape
from .rule import Match, Rule


def _match_flatten(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type not in ("Reshape", "Flatten") or graph.parameter(node.output[0]):
        return None
    before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
    flat = (BATCH, prod(int(axis) for axis in before[1:]))
    return Match((node.input[0],)) if before[0] == BATCH and after == flat else None


def _reshape_gradient(tape: Tape, op: Op) -> None:
    tape.to_input(op, "Reshape", (tape.gradient(op.outputs[0]),))


def _expand_reshape(builder: Builder, op: Op) -> None:
    builder.reshape(op.inputs[0], (-1, *builder.shape(op.outputs[0])), out=op.outputs[0])


def _match_add(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "Add" or any(
        graph.parameter(name) or graph.constant(name) is not None for name in node.input
    ):
        return None
    left, right = (graph.shape(name) for name in node.input)
    return Match(tuple(node.input)) if left == right else None


def _add_gradient(tape: Tape, op: Op) -> None:
    gy = tape.gradient(op.outputs[0])
    for value in op.inputs:
        tape.pass_on(value, gy)


def _expand_add(builder: Builder, op: Op) -> None:
    builder.add("Add", *op.inputs, out=op.outputs[0])


RULES = (
    Rule(
        "Reshape",
        _expand_reshape,
        _match_flatten,
        _reshape_gradient,
        signature="x -> y",
        meaning="the same bytes in the shape of y; its own gradient",
    ),
    Rule(
        "Add",
        _expand_add,
        _match_add,
        _add_gradient,
        signature="a, b -> y",
        meaning="elementwise sum (also where a value has several readers and gradients meet)",
    ),
)
