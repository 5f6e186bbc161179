"""One operation, one rule: how it is recognised, differentiated and written as standard ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnx import NodeProto

from ...edge.program import Attr, Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..param import Param
from ..reading.graph import ForwardGraph, Shape
from ..tape import Tape

__all__ = [
    "Extra",
    "Match",
    "Param",
    "Rule",
    "integer",
    "integers",
    "number",
    "unless_zero",
    "weight_and_bias",
]


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
        params: what it reads beside them (None: an absent optional one).
        nodes: how many ONNX nodes the match explains; among several matches the largest wins.
        attrs: the operation's attributes.
        extras: outputs beside the first.
    """

    inputs: tuple[str, ...]
    params: tuple[Param | None, ...] = ()
    nodes: int = 1
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    extras: tuple[Extra, ...] = ()


@dataclass(frozen=True)
class Rule:
    """Everything the export knows about one operation.

    Attributes:
        kind: the operation's name.
        expand: emits standard ONNX operators for it.
        match: recognises it at the ONNX node that computes its output; None for what no forward graph has.
        gradient: emits the backward operations; None where nothing is differentiated.
        layer_kind: "conv", "fc", "norm", ... for operations whose learned parameters are a layer.
        signature: for the table in the docs: "x, w, [b] -> y".
        attributes: the attributes' names, separated by commas.
        meaning: what it computes, in one line.
    """

    kind: str
    expand: Callable[[Builder, Op], None]
    match: Callable[[ForwardGraph, NodeProto], Match | None] | None = None
    gradient: Callable[[Tape, Op], None] | None = None
    layer_kind: str | None = None
    signature: str = field(kw_only=True)
    attributes: str = field(default="", kw_only=True)
    meaning: str = field(kw_only=True)


def weight_and_bias(graph: ForwardGraph, node: NodeProto) -> tuple[Param | None, Param | None]:
    """What a node reads after its input; a bias that is absent or a constant of zeros is None.

    Raises:
        ExportError: the bias depends on the input.
    """
    weight, bias = [*node.input[1:], "", ""][:2]
    found = graph.param("bias", bias)
    if bias and found is None:
        raise ExportError(
            f"{graph.described(node)}: its bias is computed; use a parameter, or add it separately"
        )
    return graph.param("weight", weight), unless_zero(found)


def refuse_computed(graph: ForwardGraph, node: NodeProto) -> None:
    """Raise ExportError where one operand is an activation and another is computed from parameters alone."""
    if not any(graph.is_activation(name) for name in node.input):
        return
    for name in filter(None, node.input):
        maker = graph.producer(name)
        repeated = maker is not None and maker.op_type in ("Expand", "Tile")
        if not (repeated or graph.is_activation(name) or graph.param("", name)):
            raise ExportError(
                f"{graph.described(node)}: its operand {name!r} is computed from parameters; make the result itself "
                "the parameter (of weight_norm: torch.nn.utils.parametrize.remove_parametrizations)"
            )


def unless_zero(param: Param | None) -> Param | None:
    """None for a constant of zeros (the exporter's way to say: no bias)."""
    return None if param is None or not (param.learned or param.value.any()) else param


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
