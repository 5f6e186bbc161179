"""GroupNorm: in ONNX a reshape to groups, InstanceNormalization, a reshape back, Mul and Add."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from ...edge.program import BATCH, Op
from ..errors import ExportError
from ..forward_graph import ForwardGraph, attributes
from ..onnx_builder import Builder
from ..tape import SAMPLE_WEIGHT, Tape
from .rule import Extra, Match, Param, Rule, integer, number


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """Recognise Add(Mul(Reshape(InstanceNormalization(Reshape(x))), scale), bias), either way around."""
    for product, bias in _either_order(node, "Add"):
        for normal, scale in _either_order(graph.producer(product), "Mul"):
            back = graph.producer(normal, "Reshape")
            norm = graph.producer(back.input[0], "InstanceNormalization") if back else None
            split = graph.producer(norm.input[0], "Reshape") if norm else None
            if norm is not None and split is not None:
                return _normalised(
                    graph, norm, split, (graph.param("weight", scale), graph.param("bias", bias))
                )
    return None


def _either_order(node: NodeProto | None, kind: str) -> list[tuple[str, str]]:
    """Both orders of the two inputs of a node of this kind, else none."""
    if node is None or node.op_type != kind:
        return []
    first, second = node.input
    return [(first, second), (second, first)]


def _normalised(
    graph: ForwardGraph, norm: NodeProto, split: NodeProto, params: tuple[Param | None, Param | None]
) -> Match:
    x, (scale, bias) = split.input[0], params
    shape, target = graph.shape(x), graph.constant(split.input[1])
    if target is None or len(target) != 3 or int(shape[1]) % int(target[1]) or not _is_plain(graph, norm):
        raise ExportError(
            f"node {norm.name!r} (InstanceNormalization) is not a GroupNorm; use torch.nn.GroupNorm"
        )
    if scale is None or bias is None or not scale.value.shape == bias.value.shape == shape[1:2]:
        raise ExportError(f"node {norm.name!r}: a GroupNorm without its own weight and bias; use affine=True")
    groups = int(target[1])
    eps = float(f"{attributes(norm).get('epsilon', 1e-5):.7g}")
    extras = (Extra("x_hat", shape), Extra("inv_std", (BATCH, groups)))
    return Match((x,), (scale, bias), 5, {"groups": groups, "eps": eps}, extras)


def _is_plain(graph: ForwardGraph, norm: NodeProto) -> bool:
    """Whether an InstanceNormalization's own scale is 1 and its bias 0."""
    ones, zeros = graph.constant(norm.input[1]), graph.constant(norm.input[2])
    return ones is not None and zeros is not None and bool(np.all(ones == 1) and np.all(zeros == 0))


def _gradient(tape: Tape, op: Op) -> None:
    _, scale, bias = op.inputs
    y, x_hat, inv_std = op.outputs
    gy = tape.gradient(y)
    fw, bw = tape.attend(op, x_hat, gy)
    tape.to_input(op, "GroupNormInputGrad", (gy, x_hat, inv_std, scale), {"groups": op.attrs["groups"]})
    tape.to_parameter(op, scale, "ScaleGrad", (gy, x_hat, SAMPLE_WEIGHT, fw, bw), {"axis": 1})
    tape.to_parameter(op, bias, "BiasGrad", (gy, SAMPLE_WEIGHT, bw), {"axis": 1})


def _expand(builder: Builder, op: Op) -> None:
    x, scale, bias = op.inputs
    y, x_hat, inv_std = op.outputs
    grouped = builder.reshape(x, (0, integer(op, "groups"), -1))
    centred = builder.add("Sub", grouped, builder.mean(grouped, [2]))
    variance = builder.mean(builder.add("Mul", centred, centred), [2])
    deviation = builder.add("Sqrt", builder.add("Add", variance, builder.floats(number(op, "eps"))))
    inverse = builder.add("Reciprocal", deviation)
    if inv_std:
        builder.add("Squeeze", inverse, builder.ints([2]), out=inv_std)
    rank = len(builder.shape(x)) + 1
    normal = builder.reshape(builder.add("Mul", centred, inverse), (0, *builder.shape(x)), out=x_hat)
    scaled = builder.add("Mul", normal, builder.over_space(scale, rank))
    builder.add("Add", scaled, builder.over_space(bias, rank), out=y)


def _expand_input_grad(builder: Builder, op: Op) -> None:
    """gx = inv_std * (g - mean(g) - x_hat * mean(g * x_hat)), g = scale * gy, means over sample and group."""
    gy, x_hat, inv_std, scale = op.inputs
    shape = builder.shape(gy)
    split = (0, integer(op, "groups"), -1)
    g = builder.reshape(builder.add("Mul", gy, builder.over_space(scale, len(shape) + 1)), split)
    normal = builder.reshape(x_hat, split)
    along = builder.add("Mul", normal, builder.mean(builder.add("Mul", g, normal), [2]))
    centred = builder.add("Sub", builder.add("Sub", g, builder.mean(g, [2])), along)
    scaled = builder.add("Mul", centred, builder.add("Unsqueeze", inv_std, builder.ints([2])))
    builder.reshape(scaled, (0, *shape), out=op.outputs[0])


RULES = (
    Rule(
        "GroupNorm",
        _expand,
        _match,
        _gradient,
        "norm",
        signature="x, scale, bias -> y, x_hat, inv_std",
        attributes="groups, eps",
        meaning="x_hat = (x - mean)*inv_std per sample and group (biased variance); y = scale*x_hat + bias; inv_std "
        "(N, groups)",
    ),
    Rule(
        "GroupNormInputGrad",
        _expand_input_grad,
        signature="gy, x_hat, inv_std, scale -> gx",
        attributes="groups",
        meaning="the gradient of x",
    ),
)
