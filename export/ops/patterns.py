"""Arithmetic with constants in ONNX graphs, in whatever order an exporter wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import isclose

import numpy as np
from onnx import NodeProto

from ..reading.graph import ForwardGraph

_VIEWS = ("Cast", "CastLike", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_LARGEST_DENOMINATOR = 1000


def simplest(value: float) -> float:
    """The simplest number that is this one in float32: what the model's author wrote, such as 0.2 or 1/6."""
    single = np.float32(value)
    if not np.isfinite(single):
        return float(value)
    fraction = float(Fraction(float(single)).limit_denominator(_LARGEST_DENOMINATOR))
    return fraction if np.float32(fraction) == single else float(str(single))


def scalar(graph: ForwardGraph, value: str) -> float | None:
    """The one number a value always is, as `simplest` has it; None for anything else."""
    source = value
    while (node := graph.producer(source)) is not None and node.op_type in _VIEWS:
        source = node.input[0]
    if not value or (node is not None and node.op_type != "Constant") or graph.parameter(source):
        return None
    constant = graph.constant(value)
    return simplest(float(constant.reshape(()))) if constant is not None and constant.size == 1 else None


def near(value: float | None, expected: float) -> bool:
    """Whether a constant of a pattern is the expected one, in the digits that authors write."""
    return value is not None and isclose(value, expected, rel_tol=1e-5)


@dataclass(frozen=True)
class Product:
    """A value as a constant times other values.

    Attributes:
        factor: the constant.
        values: what it multiplies, with repetitions for powers.
        nodes: how many ONNX nodes that takes.
    """

    factor: float
    values: tuple[str, ...]
    nodes: int

    def times(self, other: Product) -> Product:
        """The product of two products by one more node."""
        values = (*self.values, *other.values)
        return Product(self.factor * other.factor, values, self.nodes + other.nodes + 1)


def products(graph: ForwardGraph, value: str, depth: int = 3) -> Iterator[Product]:
    """Every way to write a value as a product, down to `depth` nodes; the first is the value itself."""
    value = graph.resolve(value)
    yield Product(1.0, (value,), 0)
    node = graph.producer(value)
    if node is None or depth == 0 or node.op_type not in ("Mul", "Div", "Pow"):
        return
    left, right = node.input
    constant = scalar(graph, right)
    if node.op_type == "Mul":
        for first in _sides(graph, left, depth - 1):
            for second in _sides(graph, right, depth - 1):
                yield first.times(second)
    elif node.op_type == "Div" and constant:
        for first in _sides(graph, left, depth - 1):
            yield first.times(Product(1 / constant, (), 0))
    elif node.op_type == "Pow" and constant in (2, 3):
        yield Product(1.0, (graph.resolve(left),) * int(constant), 1)


def _sides(graph: ForwardGraph, value: str, depth: int) -> Iterator[Product]:
    constant = scalar(graph, value)
    if constant is None:
        yield from products(graph, value, depth)
    else:
        yield Product(constant, (), 0)


def scaled(graph: ForwardGraph, value: str, factor: float) -> Iterator[Product]:
    """The ways to write a value as this factor times one other value."""
    return (p for p in products(graph, value) if len(p.values) == 1 and near(p.factor, factor))


def either_order(node: NodeProto | None, kind: str) -> tuple[tuple[str, str], ...]:
    """Both orders of the two inputs of a node of this kind, else none."""
    if node is None or node.op_type != kind or len(node.input) != 2:
        return ()
    first, second = node.input
    return (first, second), (second, first)
