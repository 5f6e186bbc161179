"""Average pooling, also where an adaptive pool divides its input evenly."""

from __future__ import annotations

from onnx import NodeProto

from ...edge.program import Op
from ...edge.reference.average_pool import axis_entries
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, attributes
from ..tape import Tape
from .matrices import apply_matrices
from .rule import Match, Rule, integer
from .windows import windows


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "AveragePool":
        return None
    geometry, attrs = windows(graph, node), attributes(node)
    given = list(attrs.get("pads", [0] * len(geometry.pads)))
    counts = attrs.get("count_include_pad", 0) if any(given) else 0
    if counts and attrs.get("ceil_mode", 0) and geometry.pads != given:
        raise ExportError(
            f"{graph.described(node)}: windows that reach over the padding (ceil_mode) while padding counts as "
            "elements; use count_include_pad=False or ceil_mode=False"
        )
    return Match((node.input[0],), attrs={**geometry.attrs, "count_include_pad": int(counts)})


def _gradient(tape: Tape, op: Op) -> None:
    tape.to_input(op, "AveragePoolGrad", (tape.gradient(op.outputs[0]),), op.attrs)


def _expand(builder: Builder, op: Op) -> None:
    attrs = {"kernel_shape": op.attrs["kernel"], "strides": op.attrs["strides"], "pads": op.attrs["pads"]}
    counts = integer(op, "count_include_pad")
    builder.add_many("AveragePool", op.inputs, op.outputs, {**attrs, "count_include_pad": counts})


def _expand_grad(builder: Builder, op: Op) -> None:
    apply_matrices(builder, op, axis_entries, transposed=True)


RULES = (
    Rule(
        "AveragePool",
        _expand,
        _match,
        _gradient,
        signature="x -> y",
        attributes="kernel [r], strides [r], pads [2r: begins, ends], count_include_pad (0 or 1)",
        meaning="x (N, C, L) or (N, C, H, W); mean of every window, of its real elements or (count_include_pad) of all",
    ),
    Rule(
        "AveragePoolGrad",
        _expand_grad,
        signature="gy -> gx",
        attributes="as AveragePool",
        meaning="every gradient spread over its window",
    ),
)
