"""GELU (Hendrycks and Gimpel 2016), exact or by tanh: standard ONNX of opset 18 writes it with arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi, sqrt

from onnx import NodeProto

from ...edge.program import Op
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, attributes
from ..tape import Tape
from .patterns import either_order, near, products, scalar, scaled
from .rule import Match, Rule

TANH_SCALE, TANH_CUBE = sqrt(2 / pi), 0.044715


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """x/2 * (1 + erf(x / sqrt 2)) or x/2 * (1 + tanh(...)), its factors in any order; or one Gelu node."""
    if node.op_type == "Gelu":
        return Match((node.input[0],), attrs={"approximate": attributes(node).get("approximate", "none")})
    for product in products(graph, node.output[0]):
        if len(product.values) != 2 or not near(product.factor, 0.5):
            continue
        for x, gate in (product.values, product.values[::-1]):
            for approximate, nodes in _gates(graph, x, gate):
                return Match((x,), nodes=product.nodes + nodes, attrs={"approximate": approximate})
    return None


def _gates(graph: ForwardGraph, x: str, gate: str) -> Iterator[tuple[str, int]]:
    """(approximation, nodes) where the gate is 1 + erf(x / sqrt 2) or 1 + tanh(u(x))."""
    for inner, one in either_order(graph.producer(gate), "Add"):
        if not near(scalar(graph, one), 1.0):
            continue
        if (erf := graph.producer(inner, "Erf")) is not None:
            for product in scaled(graph, erf.input[0], sqrt(0.5)):
                if product.values == (x,):
                    yield "none", 2 + product.nodes
        if (tanh := graph.producer(inner, "Tanh")) is not None:
            for nodes in _cubics(graph, x, tanh.input[0]):
                yield "tanh", 2 + nodes


def _cubics(graph: ForwardGraph, x: str, value: str) -> Iterator[int]:
    """Nodes of sqrt(2/pi) * (x + 0.044715 x^3), or sqrt(2/pi) * x * (1 + 0.044715 x^2)."""
    for product in products(graph, value):
        if not near(product.factor, TANH_SCALE):
            continue
        *outside, total = sorted(product.values, key=lambda name: name != x)
        if outside not in ([], [x]):
            continue
        for first, second in either_order(graph.producer(total), "Add"):
            starts = near(scalar(graph, first), 1.0) if outside else graph.resolve(first) == x
            power = (x,) * (2 if outside else 3)
            for term in products(graph, second) if starts else ():
                if term.values == power and near(term.factor, TANH_CUBE):
                    yield 1 + product.nodes + term.nodes


def _gradient(tape: Tape, op: Op) -> None:
    tape.to_input(op, "GeluGrad", (tape.gradient(op.outputs[0]), op.inputs[0]), op.attrs)


def _expand(builder: Builder, op: Op) -> None:
    """x * (1 + erf(x / sqrt 2)) / 2, or with tanh."""
    x = op.inputs[0]
    gate = _one_plus_tanh(builder, x) if op.attrs["approximate"] == "tanh" else _one_plus_erf(builder, x)
    builder.add("Mul", builder.add("Mul", x, builder.floats(0.5)), gate, out=op.outputs[0])


def _one_plus_erf(builder: Builder, x: str) -> str:
    erf = builder.add("Erf", builder.add("Mul", x, builder.floats(sqrt(0.5))))
    return builder.add("Add", erf, builder.floats(1.0))


def _one_plus_tanh(builder: Builder, x: str) -> str:
    square = builder.add("Mul", x, x)
    inner = builder.add("Mul", x, _linear(builder, square, TANH_SCALE * TANH_CUBE, TANH_SCALE))
    return builder.add("Add", builder.add("Tanh", inner), builder.floats(1.0))


def _linear(builder: Builder, value: str, factor: float, offset: float) -> str:
    return builder.add("Add", builder.add("Mul", value, builder.floats(factor)), builder.floats(offset))


def _expand_grad(builder: Builder, op: Op) -> None:
    gy, x = op.inputs
    slope = _tanh_slope(builder, x) if op.attrs["approximate"] == "tanh" else _erf_slope(builder, x)
    builder.add("Mul", gy, slope, out=op.outputs[0])


def _erf_slope(builder: Builder, x: str) -> str:
    """Phi(x) + x * phi(x)."""
    below = builder.add("Mul", _one_plus_erf(builder, x), builder.floats(0.5))
    bell = builder.add("Exp", builder.add("Mul", builder.add("Mul", x, x), builder.floats(-0.5)))
    density = builder.add("Mul", bell, builder.floats(1 / sqrt(2 * pi)))
    return builder.add("Add", below, builder.add("Mul", x, density))


def _tanh_slope(builder: Builder, x: str) -> str:
    """h + x * h * (1 - h) * 2u'(x), with h = (1 + tanh u) / 2."""
    half = builder.add("Mul", _one_plus_tanh(builder, x), builder.floats(0.5))
    square = builder.add("Mul", x, x)
    steep = builder.add("Mul", x, _linear(builder, square, 6 * TANH_SCALE * TANH_CUBE, 2 * TANH_SCALE))
    bend = builder.add("Mul", steep, builder.add("Sub", builder.floats(1.0), half))
    return builder.add("Mul", half, builder.add("Add", bend, builder.floats(1.0)))


RULES = (
    Rule(
        "Gelu",
        _expand,
        _match,
        _gradient,
        signature="x -> y",
        attributes='approximate ("none" or "tanh")',
        meaning='y = x * Phi(x), Phi the normal distribution; "tanh": x/2 * (1 + tanh(sqrt(2/pi) * '
        "(x + 0.044715*x^3)))",
    ),
    Rule(
        "GeluGrad",
        _expand_grad,
        signature="gy, x -> gx",
        attributes="approximate",
        meaning="gx = gy * (Phi(x) + x*phi(x)), or the slope of the tanh form",
    ),
)
