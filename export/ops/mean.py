"""Means over axes: ReduceMean, GlobalAveragePool, adaptive average pooling to one element."""

from __future__ import annotations

from math import prod

from onnx import NodeProto

from ...edge.program import Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, Shape, attributes
from ..tape import Tape
from .rule import Match, Rule, integer, integers


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type not in ("ReduceMean", "GlobalAveragePool"):
        return None
    axes = reduced_axes(graph, node)
    if not axes or 0 in axes:
        raise ExportError(
            f"{graph.described(node)}: a mean over axes {axes}; expected fixed axes without the batch (axis 0), "
            "samples never mix; use a norm layer instead"
        )
    keep = node.op_type == "GlobalAveragePool" or attributes(node).get("keepdims", 1)
    return Match((node.input[0],), attrs={"axes": axes, "keepdims": int(keep)})


def reduced_axes(graph: ForwardGraph, node: NodeProto) -> list[int]:
    """The axes that a Reduce... or Global...Pool takes together, ascending; none if they are not fixed."""
    shape: Shape = graph.shape(node.input[0])
    if node.op_type.startswith("Global"):
        return list(range(2, len(shape)))
    if not (node.input[1:] and node.input[1]):
        return [] if attributes(node).get("noop_with_empty_axes", 0) else list(range(len(shape)))
    axes = graph.constant(node.input[1])
    return [] if axes is None else sorted(int(axis) % len(shape) for axis in axes.reshape(-1))


def _gradient(tape: Tape, op: Op) -> None:
    tape.to_input(op, "MeanGrad", (tape.gradient(op.outputs[0]),), op.attrs)


def _expand(builder: Builder, op: Op) -> None:
    axes = builder.ints(integers(op, "axes"))
    builder.add("ReduceMean", op.inputs[0], axes, out=op.outputs[0], keepdims=integer(op, "keepdims"))


def _expand_grad(builder: Builder, op: Op) -> None:
    gy, axes, shape = op.inputs[0], integers(op, "axes"), (1, *builder.shape(op.outputs[0]))
    if not integer(op, "keepdims"):
        gy = builder.add("Unsqueeze", gy, builder.ints(axes))
    share = builder.add("Div", gy, builder.floats(prod(shape[axis] for axis in axes)))
    builder.add("Expand", share, builder.ints(shape), out=op.outputs[0])


RULES = (
    Rule(
        "Mean",
        _expand,
        _match,
        _gradient,
        signature="x -> y",
        attributes="axes (never 0), keepdims",
        meaning="mean over the axes, which stay with length 1 (keepdims) or are left away",
    ),
    Rule(
        "MeanGrad",
        _expand_grad,
        signature="gy -> gx",
        attributes="as Mean",
        meaning="gy repeated over the axes, divided by the number of elements of a mean",
    ),
)
