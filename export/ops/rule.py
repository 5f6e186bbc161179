"""One operation, one rule: how it is recognised, differentiated and written as standard ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnx import NodeProto

from ...edge.program import Attr, Op
from ..forward_graph import ForwardGraph, Shape
from ..onnx_builder import Builder
from ..tape import Tape


@dataclass(frozen=True)
class Extra:
    """A second or third output of a forward operation: the suffix of its name, shape and type."""

    suffix: str
    shape: Shape
    dtype: str = "float32"


@dataclass(frozen=True)
class Match:
    """A forward operation recognised in an ONNX graph.

    Attributes:
        inputs: the ONNX values it reads, in the program's order.
        params: module parameters that follow them ("" for an absent one).
        nodes: how many ONNX nodes the match explains; among several matches the largest wins.
        attrs: the operation's attributes.
        extras: outputs beside the first.
    """

    inputs: tuple[str, ...]
    params: tuple[str, ...] = ()
    nodes: int = 1
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    extras: tuple[Extra, ...] = ()


@dataclass(frozen=True)
class Rule:
    """Everything the export knows about one operation of docs/program.md.

    Attributes:
        kind: the operation's name.
        expand: emits standard ONNX operators for it.
        match: recognises it at the ONNX node that computes its output; None for what no forward graph has.
        gradient: emits the backward operations; None where nothing is differentiated.
        layer_kind: "conv", "fc" or "norm" for operations whose parameters are a layer.
    """

    kind: str
    expand: Callable[[Builder, Op], None]
    match: Callable[[ForwardGraph, NodeProto], Match | None] | None = None
    gradient: Callable[[Tape, Op], None] | None = None
    layer_kind: str | None = None


def weight_and_bias(graph: ForwardGraph, node: NodeProto) -> tuple[str, str] | None:
    """Names of the parameters a node reads after its input; a bias that is absent or all zeros is ""."""
    names = [graph.resolve(name) for name in node.input[1:]]
    if not names or not graph.params.issuperset(names[:1]):
        return None
    if not names[1:] or graph.params.issuperset(names[1:]):
        return names[0], "".join(names[1:])
    constant = graph.constant(names[1])
    return None if constant is None or constant.any() else (names[0], "")


def integer(op: Op, name: str) -> int:
    """An integer attribute."""
    value = op.attrs[name]
    if isinstance(value, int):
        return value
    raise TypeError(f"{op.kind} of layer {op.layer!r}: attribute {name} must be an integer, got {value!r}")


def number(op: Op, name: str) -> float:
    """A real attribute."""
    value = op.attrs[name]
    if isinstance(value, (int, float)):
        return float(value)
    raise TypeError(f"{op.kind} of layer {op.layer!r}: attribute {name} must be a number, got {value!r}")


def integers(op: Op, name: str) -> list[int]:
    """A list attribute."""
    value = op.attrs[name]
    if isinstance(value, list):
        return value
    raise TypeError(f"{op.kind} of layer {op.layer!r}: attribute {name} must be a list, got {value!r}")
