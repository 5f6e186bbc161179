"""Activations."""

from __future__ import annotations

from onnx import NodeProto

from ...edge.program import Op
from ..forward_graph import ForwardGraph
from ..onnx_builder import Builder
from ..tape import Tape
from .rule import Extra, Match, Rule


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "Relu":
        return None
    return Match((node.input[0],), extras=(Extra("mask", graph.shape(node.input[0]), "bit1"),))


def _gradient(tape: Tape, op: Op) -> None:
    y, mask = op.outputs
    tape.to_input(op, "ReluGrad", (tape.gradient(y), mask))


def _expand(builder: Builder, op: Op) -> None:
    y, mask = op.outputs
    builder.add("Relu", op.inputs[0], out=y)
    if mask:
        builder.add("Greater", op.inputs[0], builder.floats(0.0), out=mask)


def _expand_grad(builder: Builder, op: Op) -> None:
    gy, mask = op.inputs
    builder.add("Where", mask, gy, builder.floats(0.0), out=op.outputs[0])


RULES = (Rule("Relu", _expand, _match, _gradient), Rule("ReluGrad", _expand_grad))
