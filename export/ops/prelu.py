"""PReLU: leaky ReLU with a learned slope, one for all channels or one for each."""

from __future__ import annotations

from dataclasses import replace

from onnx import NodeProto

from ...edge.program import Op
from ..errors import ExportError
from ..onnx_builder import Builder, sample_scale
from ..reading.graph import ForwardGraph
from ..tape import SAMPLE_WEIGHT, Tape
from .rule import Match, Rule


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "PRelu":
        return None
    x, slope = node.input
    param, channels = graph.param("slope", slope), graph.shape(x)[1]
    if param is None or param.value.size not in (1, channels) or not _along_channels(graph, x, slope):
        raise ExportError(
            f"node {node.name!r} (PRelu) of module {graph.scope(node)!r}: expected one slope, or one for each of the "
            f"{channels} channels (axis 1), as a parameter"
        )
    return Match((x,), (replace(param, value=param.value.reshape(-1)),))


def _along_channels(graph: ForwardGraph, x: str, slope: str) -> bool:
    """Whether the slope, broadcast to x, varies along axis 1 at most."""
    reshape = graph.producer(slope, "Reshape")
    target = None if reshape is None else graph.constant(reshape.input[1])
    param = graph.param("slope", slope)
    shape = [] if param is None else list(param.value.shape)
    axes = shape if target is None else [int(axis) for axis in target]
    rank = len(graph.shape(x))
    varying = [rank - len(axes) + place for place, axis in enumerate(axes) if axis != 1]
    return param is not None and (param.value.size == 1 or varying == [1])


def _gradient(tape: Tape, op: Op) -> None:
    x, slope = op.inputs
    gy = tape.gradient(op.outputs[0])
    tape.to_input(op, "PReluInputGrad", (gy, x, slope))
    tape.to_parameter(op, slope, "PReluSlopeGrad", (gy, x, SAMPLE_WEIGHT))


def _broadcast(builder: Builder, slope: str, x: str) -> str:
    return slope if builder.shape(slope) == (1,) else builder.over_space(slope, len(builder.shape(x)) + 1)


def _expand(builder: Builder, op: Op) -> None:
    x, slope = op.inputs
    builder.add("PRelu", x, _broadcast(builder, slope, x), out=op.outputs[0])


def _expand_input_grad(builder: Builder, op: Op) -> None:
    gy, x, slope = op.inputs
    below = builder.add("Mul", gy, _broadcast(builder, slope, x))
    builder.add("Where", builder.add("Greater", x, builder.floats(0.0)), gy, below, out=op.outputs[0])


def _expand_slope_grad(builder: Builder, op: Op) -> None:
    gy, x, sample_weight = op.inputs
    rank, shape = len(builder.shape(x)) + 1, builder.shape(op.outputs[0])
    low = builder.add("Min", x, builder.floats(0.0))
    scale = builder.over_space(sample_scale(builder, sample_weight), rank)
    scaled = builder.add("Mul", builder.add("Mul", gy, low), scale)
    axes = [axis for axis in range(rank) if axis != 1 or shape == (1,)]
    builder.reshape(builder.total(scaled, axes), shape, out=op.outputs[0])


RULES = (
    Rule(
        "PRelu",
        _expand,
        _match,
        _gradient,
        "slope",
        signature="x, slope -> y",
        meaning="y = x where x > 0, else slope*x; slope (C,) along axis 1, or (1,)",
    ),
    Rule(
        "PReluInputGrad",
        _expand_input_grad,
        signature="gy, x, slope -> gx",
        meaning="gx = gy * (1 where x > 0, else slope)",
    ),
    Rule(
        "PReluSlopeGrad",
        _expand_slope_grad,
        signature="gy, x, sample_weight -> gs",
        meaning="gs = sum_n sample_weight[n]*(gy[n]*min(x[n], 0) summed over what the slope multiplies)",
    ),
)
