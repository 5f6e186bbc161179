"""Max-pooling. In ONNX the saved argmax is MaxPool's second output, flat indices into x."""

from __future__ import annotations

from math import prod

from onnx import NodeProto

from ...edge.program import Op
from ...edge.reference.pool import argmax_type
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph
from ..tape import Tape
from .mean import reduced_axes
from .rule import Extra, Match, Rule
from .windows import Windows, windows


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type == "MaxPool":
        geometry = windows(graph, node)
    elif node.op_type in ("GlobalMaxPool", "ReduceMax"):
        space = [int(axis) for axis in graph.shape(node.input[0])[2:]]
        if len(space) not in (1, 2) or reduced_axes(graph, node) != list(range(2, 2 + len(space))):
            return None
        geometry = Windows(space, [1] * len(space), [0] * 2 * len(space))
    else:
        return None
    shape = graph.shape(node.output[0])
    argmax = Extra("argmax", shape, argmax_type(prod(geometry.kernel)))
    return Match((node.input[0],), attrs=geometry.attrs, extras=(argmax,))


def _gradient(tape: Tape, op: Op) -> None:
    y, argmax = op.outputs
    tape.to_input(op, "MaxPoolGrad", (tape.gradient(y), argmax), op.attrs)


def _expand(builder: Builder, op: Op) -> None:
    (x,), (y, argmax) = op.inputs, op.outputs
    attrs = {"kernel_shape": op.attrs["kernel"], "strides": op.attrs["strides"], "pads": op.attrs["pads"]}
    shape = builder.shape(y or argmax)
    if len(shape) == len(builder.shape(x)) or not y:
        builder.add_many("MaxPool", op.inputs, op.outputs, attrs)
        return
    pooled, _ = builder.add_many("MaxPool", op.inputs, (builder.fresh("MaxPool"), argmax), attrs)
    builder.reshape(pooled, (-1, *shape), out=y)


def _expand_grad(builder: Builder, op: Op) -> None:
    """Zeros, then scatter-add over the flattened tensor: windows may overlap."""
    gy, argmax = op.inputs
    shape = builder.shape(op.outputs[0])
    batch = builder.add("Shape", gy, start=0, end=1)
    count = builder.add("Mul", batch, builder.ints([prod(shape)]))
    zeros = builder.add("ConstantOfShape", count)
    indices, values = builder.reshape(argmax, [-1]), builder.reshape(gy, [-1])
    sums = builder.add("ScatterElements", zeros, indices, values, axis=0, reduction="add")
    builder.reshape(sums, (-1, *shape), out=op.outputs[0])


RULES = (
    Rule(
        "MaxPool",
        _expand,
        _match,
        _gradient,
        signature="x -> y, argmax",
        attributes="kernel [r], strides [r], pads [2r: begins, ends]",
        meaning="x (N, C, L) or (N, C, H, W); padding counts as -inf; argmax = row*kw + column inside the window of "
        "the first maximum; bit2 up to 4 elements, bit4 up to 16, uint8 up to 256, else int32",
    ),
    Rule(
        "MaxPoolGrad",
        _expand_grad,
        signature="gy, argmax -> gx",
        attributes="as MaxPool",
        meaning="zero, then scatter-add (windows may overlap)",
    ),
)
