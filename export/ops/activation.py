"""Piecewise linear activations: their gradient is a mask of one bit an element and two factors."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto

from ...edge.program import Attr, Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, attributes
from ..tape import Tape
from .patterns import either_order, scalar, scaled, simplest
from .rule import Extra, Match, Rule, number

_NO_BOUND = 3.4e38


def _masked(graph: ForwardGraph, x: str, attrs: dict[str, Attr], nodes: int = 1) -> Match:
    return Match((x,), nodes=nodes, attrs=attrs, extras=(Extra("mask", graph.shape(x), "bit1"),))


def _match_relu(graph: ForwardGraph, node: NodeProto) -> Match | None:
    return _masked(graph, node.input[0], {}) if node.op_type == "Relu" else None


def _relu_gradient(tape: Tape, op: Op) -> None:
    _to_input(tape, op, 1.0, 0.0)


def _to_input(tape: Tape, op: Op, inside: float, outside: float) -> None:
    y, mask = op.outputs
    tape.to_input(op, "MaskGrad", (tape.gradient(y), mask), {"inside": inside, "outside": outside})


def _expand_relu(builder: Builder, op: Op) -> None:
    y, mask = op.outputs
    builder.add("Relu", op.inputs[0], out=y)
    _expand_mask(builder, op.inputs[0], 0.0, None, mask)


def _expand_mask(builder: Builder, x: str, lower: float | None, upper: float | None, mask: str) -> None:
    """lower < x < upper, where the mask is wanted and there is a bound."""
    if not mask:
        return
    if lower is not None and upper is not None:
        above = builder.add("Greater", x, builder.floats(lower))
        builder.add("And", above, builder.add("Less", x, builder.floats(upper)), out=mask)
    elif lower is not None:
        builder.add("Greater", x, builder.floats(lower), out=mask)
    elif upper is not None:
        builder.add("Less", x, builder.floats(upper), out=mask)


def _match_clip(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """Clip, or Max and Min with a number, alone or one after the other."""
    if node.op_type == "Clip":
        return _clip(graph, node.input[0], _bound(graph, node, 1), _bound(graph, node, 2), 1)
    for x, lower, upper in _limits(graph, node):
        for inner, more_lower, more_upper in _limits(graph, graph.producer(x)):
            low, high = (more_lower, upper) if lower is None else (lower, more_upper)
            if low is not None and high is not None and low <= high:
                return _clip(graph, inner, low, high, 2)
        return _clip(graph, x, lower, upper, 1)
    return None


def _clip(graph: ForwardGraph, x: str, lower: float | None, upper: float | None, nodes: int) -> Match | None:
    """The match; bounds that no float32 number passes are none, and without any there is nothing to clip."""
    low = lower if lower is not None and lower > -_NO_BOUND else None
    high = upper if upper is not None and upper < _NO_BOUND else None
    return None if low is None and high is None else _masked(graph, x, {"min": low, "max": high}, nodes)


def _bound(graph: ForwardGraph, node: NodeProto, position: int) -> float | None:
    """A bound of a Clip: an input, or in old files an attribute."""
    if len(node.input) <= position or not node.input[position]:
        given = attributes(node).get(("min", "max")[position - 1])
        return None if given is None else simplest(given)
    value = scalar(graph, node.input[position])
    if value is None:
        raise ExportError(
            f"node {node.name!r} (Clip) of module {graph.scope(node)!r}: its bounds must be numbers, not tensors"
        )
    return value


def _limits(graph: ForwardGraph, node: NodeProto | None) -> Iterator[tuple[str, float | None, float | None]]:
    """(what it limits, lower bound, upper bound) of a Max or a Min with a number."""
    for kind in ("Max", "Min"):
        for x, limit in either_order(node, kind):
            value = scalar(graph, limit)
            if value is not None:
                yield (x, value, None) if kind == "Max" else (x, None, value)


def _clip_gradient(tape: Tape, op: Op) -> None:
    _to_input(tape, op, 1.0, 0.0)


def _bounds(op: Op) -> tuple[float | None, float | None]:
    lower, upper = (None if op.attrs[name] is None else number(op, name) for name in ("min", "max"))
    return lower, upper


def _expand_clip(builder: Builder, op: Op) -> None:
    y, mask = op.outputs
    lower, upper = _bounds(op)
    limits = ["" if bound is None else builder.floats(bound) for bound in (lower, upper)]
    builder.add_many("Clip", (op.inputs[0], *limits), (y,), {})
    _expand_mask(builder, op.inputs[0], lower, upper, mask)


def _match_leaky_relu(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "LeakyRelu":
        return None
    return _masked(graph, node.input[0], {"alpha": simplest(attributes(node).get("alpha", 0.01))})


def _leaky_relu_gradient(tape: Tape, op: Op) -> None:
    _to_input(tape, op, 1.0, number(op, "alpha"))


def _expand_leaky_relu(builder: Builder, op: Op) -> None:
    y, mask = op.outputs
    builder.add("LeakyRelu", op.inputs[0], out=y, alpha=number(op, "alpha"))
    _expand_mask(builder, op.inputs[0], 0.0, None, mask)


def _match_hard_sigmoid(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """HardSigmoid, or relu6(x + 3) / 6."""
    if node.op_type != "HardSigmoid":
        for product in scaled(graph, node.output[0], 1 / 6):
            for x, nodes in shifted_relu6(graph, product.values[0]):
                return _masked(graph, x, {"alpha": 1 / 6, "beta": 0.5}, product.nodes + nodes)
        return None
    given = {"alpha": 0.2, "beta": 0.5} | attributes(node)
    alpha, beta = simplest(given["alpha"]), simplest(given["beta"])
    if alpha <= 0:
        raise ExportError(f"node {node.name!r} (HardSigmoid): expected a positive alpha, got {alpha}")
    return _masked(graph, node.input[0], {"alpha": alpha, "beta": beta})


def shifted_relu6(graph: ForwardGraph, value: str) -> Iterator[tuple[str, int]]:
    """(x, nodes) where a value is relu6(x + 3), which hard sigmoids and swishes are written with."""
    clip = graph.producer(value, "Clip")
    if clip is None or (_bound(graph, clip, 1), _bound(graph, clip, 2)) != (0.0, 6.0):
        return
    for x, three in either_order(graph.producer(clip.input[0]), "Add"):
        if scalar(graph, three) == 3:
            yield graph.resolve(x), 2


def _hard_sigmoid_gradient(tape: Tape, op: Op) -> None:
    _to_input(tape, op, number(op, "alpha"), 0.0)


def _expand_hard_sigmoid(builder: Builder, op: Op) -> None:
    y, mask = op.outputs
    alpha, beta = number(op, "alpha"), number(op, "beta")
    builder.add("HardSigmoid", op.inputs[0], out=y, alpha=alpha, beta=beta)
    _expand_mask(builder, op.inputs[0], -beta / alpha, (1 - beta) / alpha, mask)


def _expand_mask_grad(builder: Builder, op: Op) -> None:
    gy, mask = op.inputs
    inside, outside = (_times(builder, gy, number(op, name)) for name in ("inside", "outside"))
    builder.add("Where", mask, inside, outside, out=op.outputs[0])


def _times(builder: Builder, value: str, factor: float) -> str:
    if factor == 0:
        return builder.floats(0.0)
    return value if factor == 1 else builder.add("Mul", value, builder.floats(factor))


RULES = (
    Rule(
        "Relu",
        _expand_relu,
        _match_relu,
        _relu_gradient,
        signature="x -> y, mask",
        meaning="y = max(x, 0); mask (bit1) = x > 0",
    ),
    Rule(
        "Clip",
        _expand_clip,
        _match_clip,
        _clip_gradient,
        signature="x -> y, mask",
        attributes="min, max (null: no bound)",
        meaning="y = min(max(x, min), max); mask (bit1) = min < x < max",
    ),
    Rule(
        "LeakyRelu",
        _expand_leaky_relu,
        _match_leaky_relu,
        _leaky_relu_gradient,
        signature="x -> y, mask",
        attributes="alpha",
        meaning="y = x where x > 0, else alpha*x; mask (bit1) = x > 0",
    ),
    Rule(
        "HardSigmoid",
        _expand_hard_sigmoid,
        _match_hard_sigmoid,
        _hard_sigmoid_gradient,
        signature="x -> y, mask",
        attributes="alpha, beta",
        meaning="y = alpha*x + beta, clipped to 0..1; mask (bit1) = strictly inside",
    ),
    Rule(
        "MaskGrad",
        _expand_mask_grad,
        signature="gy, mask -> gx",
        attributes="inside, outside",
        meaning="gx = gy * (inside where the mask is 1, else outside)",
    ),
)
