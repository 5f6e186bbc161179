"""Max-pooling. In ONNX the saved argmax is MaxPool's second output, flat indices into x."""

from __future__ import annotations

from onnx import NodeProto

from ...edge.program import Op
from ..errors import ExportError
from ..forward_graph import ForwardGraph, attributes
from ..onnx_builder import Builder
from ..tape import Tape
from .rule import Extra, Match, Rule


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "MaxPool":
        return None
    attrs = attributes(node)
    kernel = list(attrs["kernel_shape"])
    plain = (
        len(kernel) == 2 and list(attrs.get("dilations", [1, 1])) == [1, 1] and not attrs.get("ceil_mode", 0)
    )
    if not plain or attrs.get("auto_pad", "NOTSET") != "NOTSET":
        raise ExportError(
            f"node {node.name!r} (MaxPool): expected 2-d, without dilation, ceil_mode or auto_pad"
        )
    geometry = {
        "kernel": kernel,
        "strides": list(attrs.get("strides", [1, 1])),
        "pads": list(attrs.get("pads", [0, 0, 0, 0])),
    }
    argmax = Extra("argmax", graph.shape(node.output[0]), _index_type(kernel[0] * kernel[1]))
    return Match((node.input[0],), attrs=geometry, extras=(argmax,))


def _index_type(elements: int) -> str:
    if elements > 256:
        raise ExportError(f"max-pool windows of {elements} elements are not supported; at most 256")
    return "bit2" if elements <= 4 else "bit4" if elements <= 16 else "uint8"


def _gradient(tape: Tape, op: Op) -> None:
    y, argmax = op.outputs
    tape.to_input(op, "MaxPoolGrad", (tape.gradient(y), argmax), op.attrs)


def _expand(builder: Builder, op: Op) -> None:
    attrs = {"kernel_shape": op.attrs["kernel"], "strides": op.attrs["strides"], "pads": op.attrs["pads"]}
    builder.add_many("MaxPool", op.inputs, op.outputs, attrs)


def _expand_grad(builder: Builder, op: Op) -> None:
    """Zeros, then scatter-add over the flattened tensor: windows may overlap."""
    gy, argmax = op.inputs
    shape = builder.shape(op.outputs[0])
    batch = builder.add("Shape", gy, start=0, end=1)
    count = builder.add("Mul", batch, builder.ints([shape[0] * shape[1] * shape[2]]))
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
        attributes="kernel [2], strides [2], pads [4]",
        meaning="padding counts as -inf; argmax = row*kw + column inside the window of the first maximum; bit2 up "
        "to 4 elements, bit4 up to 16, else uint8",
    ),
    Rule(
        "MaxPoolGrad",
        _expand_grad,
        signature="gy, argmax -> gx",
        attributes="as MaxPool",
        meaning="zero, then scatter-add (windows may overlap)",
    ),
)
