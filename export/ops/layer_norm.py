"""LayerNorm over trailing axes: LayerNormalization in ONNX."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from onnx import NodeProto

from ...edge.program import BATCH, Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, attributes
from ..tape import SAMPLE_WEIGHT, Tape
from .rule import Extra, Match, Param, Rule, integer, number


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "LayerNormalization":
        return None
    attrs, x = attributes(node), graph.shape(node.input[0])
    start = attrs.get("axis", -1) % len(x)
    if x[0] != BATCH or start == 0:
        raise ExportError(
            f"{graph.described(node)}: it normalises over the batch; normalise trailing axes only"
        )
    size = tuple(int(axis) for axis in x[start:])
    scale, bias = [*node.input[1:], ""][:2]
    zeros = Param("bias", np.zeros(size, np.float32), learned=False)
    params = tuple(
        _of_shape(param, size)
        for param in (graph.param("weight", scale), graph.param("bias", bias) if bias else zeros)
    )
    if None in params:
        raise ExportError(
            f"{graph.described(node)}: expected a scale and a bias of shape {size}, as parameters or constants"
        )
    eps = float(f"{attrs.get('epsilon', 1e-5):.7g}")
    extras = (Extra("x_hat", x), Extra("inv_std", x[:start]))
    return Match((node.input[0],), params, 1, {"dims": len(size), "eps": eps}, extras)


def _of_shape(param: Param | None, shape: tuple[int, ...]) -> Param | None:
    """A parameter in this shape; a constant may be broadcast to it; None where that is impossible."""
    if param is None or (param.learned and param.value.size != prod(shape)):
        return None
    try:
        value = param.value.reshape(shape) if param.learned else np.broadcast_to(param.value, shape)
    except ValueError:
        return None
    return replace(param, value=value)


def _gradient(tape: Tape, op: Op) -> None:
    _, scale, bias = op.inputs
    y, x_hat, inv_std = op.outputs
    gy, dims = tape.gradient(y), integer(op, "dims")
    if op.layer in tape.attention and dims > 1:
        raise ExportError(
            f"layer {op.layer!r}: attention needs one axis of channels; a LayerNorm over {dims} axes has none"
        )
    fw, bw = tape.attend(op, x_hat, gy, axis=-1)
    tape.to_input(op, "LayerNormInputGrad", (gy, x_hat, inv_std, scale), {"dims": dims})
    tape.to_parameter(op, scale, "ScaleGrad", (gy, x_hat, SAMPLE_WEIGHT, fw, bw), {"axis": -1})
    tape.to_parameter(op, bias, "BiasGrad", (gy, SAMPLE_WEIGHT, bw), {"axis": -1})


def _axes(op: Op) -> list[int]:
    return list(range(-integer(op, "dims"), 0))


def _expand(builder: Builder, op: Op) -> None:
    x, scale, bias = op.inputs
    y, x_hat, inv_std = op.outputs
    if not (x_hat or inv_std):
        builder.add(
            "LayerNormalization", x, scale, bias, out=y, axis=min(_axes(op)), epsilon=number(op, "eps")
        )
        return
    centred = builder.add("Sub", x, builder.mean(x, _axes(op)))
    variance = builder.mean(builder.add("Mul", centred, centred), _axes(op))
    deviation = builder.add("Sqrt", builder.add("Add", variance, builder.floats(number(op, "eps"))))
    inverse = builder.add("Reciprocal", deviation)
    if inv_std:
        builder.add("Squeeze", inverse, builder.ints(_axes(op)), out=inv_std)
    normal = builder.add("Mul", centred, inverse, out=x_hat)
    if y:
        builder.add("Add", builder.add("Mul", normal, scale), bias, out=y)


def _expand_input_grad(builder: Builder, op: Op) -> None:
    """gx = inv_std * (g - mean(g) - x_hat * mean(g * x_hat)), g = scale * gy, means over the trailing axes."""
    gy, x_hat, inv_std, scale = op.inputs
    axes = _axes(op)
    g = builder.add("Mul", gy, scale)
    along = builder.add("Mul", x_hat, builder.mean(builder.add("Mul", g, x_hat), axes))
    centred = builder.add("Sub", builder.add("Sub", g, builder.mean(g, axes)), along)
    builder.add("Mul", centred, builder.add("Unsqueeze", inv_std, builder.ints(axes)), out=op.outputs[0])


RULES = (
    Rule(
        "LayerNorm",
        _expand,
        _match,
        _gradient,
        "norm",
        signature="x, scale, bias -> y, x_hat, inv_std",
        attributes="dims, eps",
        meaning="x_hat = (x - mean)*inv_std over the `dims` last axes (biased variance); y = scale*x_hat + bias, both "
        "of the shape of these axes; inv_std has the other axes",
    ),
    Rule(
        "LayerNormInputGrad",
        _expand_input_grad,
        signature="gy, x_hat, inv_std, scale -> gx",
        attributes="dims",
        meaning="the gradient of x",
    ),
)
