"""Activations."""

from __future__ import annotations

from onnx import NodeProto

from ...edge.program import Op
from ..forward_graph import ForwardGraph
from ..onnx_builder import Builder
from ..tape import Tape
from .rule import Extra, Match, Rule, number


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "Relu":
        return None
    return Match((node.input[0],), extras=(Extra("mask", graph.shape(node.input[0]), "bit1"),))


def _gradient(tape: Tape, op: Op) -> None:
    y, mask = op.outputs
    tape.to_input(op, "MaskGrad", (tape.gradient(y), mask), {"inside": 1.0, "outside": 0.0})


def _expand(builder: Builder, op: Op) -> None:
    y, mask = op.outputs
    builder.add("Relu", op.inputs[0], out=y)
    if mask:
        builder.add("Greater", op.inputs[0], builder.floats(0.0), out=mask)


def _expand_grad(builder: Builder, op: Op) -> None:
    gy, mask = op.inputs
    inside, outside = (_scaled(builder, gy, number(op, name)) for name in ("inside", "outside"))
    builder.add("Where", mask, inside, outside, out=op.outputs[0])


def _scaled(builder: Builder, value: str, factor: float) -> str:
    if factor == 0:
        return builder.floats(0.0)
    return value if factor == 1 else builder.add("Mul", value, builder.floats(factor))


RULES = (
    Rule(
        "Relu",
        _expand,
        _match,
        _gradient,
        signature="x -> y, mask",
        meaning="y = max(x, 0); mask (bit1) = x > 0",
    ),
    Rule(
        "MaskGrad",
        _expand_grad,
        signature="gy, mask -> gx",
        attributes="inside, outside",
        meaning="gx = gy * (inside where the mask is 1, else outside)",
    ),
)
