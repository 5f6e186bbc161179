"""Scale and shift by parameters or constants, and a parameter that every sample gets."""

from __future__ import annotations

from ...edge.program import Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..tape import SAMPLE_WEIGHT, Tape
from .affine_match import match_affine, match_expand
from .rule import Rule, integer


def _gradient(tape: Tape, op: Op) -> None:
    x, scale, bias = op.inputs
    gy, axis = tape.gradient(op.outputs[0]), integer(op, "axis")
    fw, bw = _attend(tape, op, gy)
    if scale:
        tape.to_input(op, "AffineInputGrad", (gy, scale), {"axis": axis})
        tape.to_parameter(op, scale, "ScaleGrad", (gy, x, SAMPLE_WEIGHT, fw, bw), {"axis": axis})
    else:
        tape.pass_on(x, gy)
    tape.to_parameter(op, bias, "BiasGrad", (gy, SAMPLE_WEIGHT, bw), {"axis": axis})


def _attend(tape: Tape, op: Op, gy: str) -> tuple[str, str]:
    x, axis = op.inputs[0], integer(op, "axis")
    channels = (tape.tensors[x].shape[axis],)
    shapes = {tape.tensors[name].shape for name in op.inputs[1:] if name}
    if op.layer in tape.attention and shapes != {channels}:
        raise ExportError(
            f"layer {op.layer!r}: attention needs one number a channel; its parameters have shape {min(shapes)}"
        )
    return tape.attend(op, x, gy, axis)


def _spread(builder: Builder, op: Op, parameter: str) -> str:
    """A parameter, broadcast to the operation's output."""
    rank = len(builder.shape(op.outputs[0])) + 1
    return builder.over_space(parameter, rank) if integer(op, "axis") == 1 else parameter


def _expand(builder: Builder, op: Op) -> None:
    x, scale, bias = op.inputs
    if scale:
        x = builder.add("Mul", x, _spread(builder, op, scale), out="" if bias else op.outputs[0])
    if bias:
        builder.add("Add", x, _spread(builder, op, bias), out=op.outputs[0])


def _expand_input_grad(builder: Builder, op: Op) -> None:
    gy, scale = op.inputs
    builder.add("Mul", gy, _spread(builder, op, scale), out=op.outputs[0])


def _expand_expand(builder: Builder, op: Op) -> None:
    """The number of samples is that of the first input with a batch."""
    samples = next(name for name, t in builder.tensors.items() if t.role == "input" and t.batched)
    batch = builder.add("Shape", samples, start=0, end=1)
    shape = builder.add("Concat", batch, builder.ints(list(builder.shape(op.outputs[0]))), axis=0)
    builder.add("Expand", op.inputs[0], shape, out=op.outputs[0])


RULES = (
    Rule(
        "Affine",
        _expand,
        match_affine,
        _gradient,
        "affine",
        signature="x, [scale], [bias] -> y",
        attributes="axis",
        meaning="y = scale*x + bias; axis 1: both are (C,), axis 1 of x; axis -1: both have the shape of the last axes "
        "of x, or are (1,)",
    ),
    Rule(
        "AffineInputGrad",
        _expand_input_grad,
        signature="gy, scale -> gx",
        attributes="axis",
        meaning="the gradient of x",
    ),
    Rule(
        "Expand",
        _expand_expand,
        match_expand,
        lambda tape, op: tape.to_parameter(
            op, op.inputs[0], "BiasGrad", (tape.gradient(op.outputs[0]), SAMPLE_WEIGHT, ""), {"axis": -1}
        ),
        "affine",
        signature="p -> y",
        meaning="y[n] = p for every sample, p broadcast to the shape of y's other axes; its gradient is BiasGrad, "
        "axis -1",
    ),
)
