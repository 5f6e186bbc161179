"""GroupNorm and InstanceNorm, which has a group for every channel.

In ONNX a GroupNorm is a reshape to groups, InstanceNormalization, a reshape back, Mul and Add.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto

from ...edge.program import BATCH, Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, Shape, attributes
from ..tape import SAMPLE_WEIGHT, Tape
from .patterns import either_order
from .rule import Extra, Match, Param, Rule, integer, number


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """Recognise GroupNorm as exporters write it, GroupNormalization and InstanceNormalization."""
    if node.op_type in _NODES:
        return _NODES[node.op_type](graph, node)
    for product, bias in either_order(node, "Add"):
        for normal, scale in either_order(graph.producer(product), "Mul"):
            found = _grouped(graph, graph.producer(normal))
            if found is not None:
                return _normalised(graph, *found, graph.param("weight", scale), graph.param("bias", bias), 5)
    return None


def _grouped(graph: ForwardGraph, back: NodeProto | None) -> tuple[NodeProto, str, int] | None:
    """InstanceNormalization, x and groups of Reshape(InstanceNormalization(Reshape(x))), whose own scale is 1."""
    norm = (
        graph.producer(back.input[0], "InstanceNormalization") if back and back.op_type == "Reshape" else None
    )
    split = graph.producer(norm.input[0], "Reshape") if norm else None
    if norm is None or split is None:
        return None
    shape, target = graph.shape(split.input[0]), graph.constant(split.input[1])
    if target is None or len(target) != 3 or int(shape[1]) % int(target[1]) or not _is_plain(graph, norm):
        raise ExportError(
            f"{graph.described(norm)}: it is neither an InstanceNorm nor a GroupNorm; use torch.nn.GroupNorm"
        )
    return norm, split.input[0], int(target[1])


def _is_plain(graph: ForwardGraph, norm: NodeProto) -> bool:
    """Whether an InstanceNormalization's own scale is 1 and its bias 0."""
    ones, zeros = graph.constant(norm.input[1]), graph.constant(norm.input[2])
    return ones is not None and zeros is not None and bool(np.all(ones == 1) and np.all(zeros == 0))


def _without_affine(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """A GroupNorm whose scale and bias were left away."""
    found = _grouped(graph, node)
    if found is None or graph.shape(node.output[0]) != graph.shape(found[1]):
        return None
    ones = np.ones(int(graph.shape(found[1])[1]), np.float32)
    scale, bias = Param("weight", ones, learned=False), Param("bias", 0 * ones, learned=False)
    return _normalised(graph, *found, scale, bias, 3)


def _own(graph: ForwardGraph, node: NodeProto) -> Match:
    """InstanceNormalization or GroupNormalization of x itself."""
    x, scale, bias = node.input
    groups = attributes(node).get("num_groups", graph.shape(x)[1])
    return _normalised(
        graph, node, x, int(groups), graph.param("weight", scale), graph.param("bias", bias), 1
    )


_NODES = {"Reshape": _without_affine, "InstanceNormalization": _own, "GroupNormalization": _own}


def _normalised(
    graph: ForwardGraph,
    norm: NodeProto,
    x: str,
    groups: int,
    scale: Param | None,
    bias: Param | None,
    nodes: int,
) -> Match:
    shape = graph.shape(x)
    params = (_per_channel(scale, shape), _per_channel(bias, shape))
    if None in params:
        raise ExportError(
            f"{graph.described(norm)}: expected a scale and a bias for each of the {shape[1]} channels, as parameters "
            "or constants"
        )
    eps = float(f"{attributes(norm).get('epsilon', 1e-5):.7g}")
    extras = (Extra("x_hat", shape), Extra("inv_std", (BATCH, groups)))
    return Match((x,), params, nodes, {"groups": groups, "eps": eps}, extras)


def _per_channel(param: Param | None, x: Shape) -> Param | None:
    """A parameter with one number a channel as (C,), else None."""
    fits = param is not None and param.value.size == x[1] and max(param.value.shape) == x[1]
    return replace(param, value=param.value.reshape(-1)) if param is not None and fits else None


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
    groups, rank = integer(op, "groups"), len(builder.shape(x)) + 1
    grouped = builder.reshape(x, (0, groups, -1))
    if x_hat or inv_std:
        normal = _normal_and_deviation(builder, op, grouped)
    else:
        same = builder.floats(np.ones(groups)), builder.floats(np.zeros(groups))
        whole = builder.add("InstanceNormalization", grouped, *same, epsilon=number(op, "eps"))
        normal = builder.reshape(whole, (0, *builder.shape(x)))
    scaled = builder.add("Mul", normal, builder.over_space(scale, rank))
    builder.add("Add", scaled, builder.over_space(bias, rank), out=y)


def _normal_and_deviation(builder: Builder, op: Op, grouped: str) -> str:
    """x_hat, and where it is wanted inv_std, which no operator of opset 18 has as an output."""
    _, x_hat, inv_std = op.outputs
    centred = builder.add("Sub", grouped, builder.mean(grouped, [2]))
    variance = builder.mean(builder.add("Mul", centred, centred), [2])
    deviation = builder.add("Sqrt", builder.add("Add", variance, builder.floats(number(op, "eps"))))
    inverse = builder.add("Reciprocal", deviation)
    if inv_std:
        builder.add("Squeeze", inverse, builder.ints([2]), out=inv_std)
    return builder.reshape(builder.add("Mul", centred, inverse), (0, *builder.shape(op.inputs[0])), out=x_hat)


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
