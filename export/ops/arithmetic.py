"""Sums, differences and products of two values, and scaling by constants."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from ...edge.program import BATCH, Op, Tensor
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph
from ..tape import Tape
from .patterns import simplest
from .rule import Match, Rule, number

NEGATIVE = {"factor": -1.0, "offset": 0.0}
_BROADCAST = "same rank; axes after the batch equal, or 1 and repeated"


def is_batched(graph: ForwardGraph, value: str) -> bool:
    """Whether a value has one entry per sample: it depends on the input, or repeats a parameter for every sample."""
    if graph.is_activation(value):
        return True
    return graph.constant(value) is None and not graph.parameter(value) and graph.shape(value)[:1] == (BATCH,)


def _matcher(kind: str) -> Callable[[ForwardGraph, NodeProto], Match | None]:
    """Recognise a node of this kind that reads two activations; a square is a product."""

    def match(graph: ForwardGraph, node: NodeProto) -> Match | None:
        if kind == "Mul" and node.op_type == "Pow" and is_batched(graph, node.input[0]):
            exponent = graph.constant(node.input[1])
            square = exponent is not None and exponent.size == 1 and exponent.item() == 2
            return Match((node.input[0],) * 2) if square else None
        if node.op_type != kind or not all(is_batched(graph, name) for name in node.input):
            return None
        inputs = tuple(node.input)
        left, right, whole = (graph.shape(name) for name in (*inputs, node.output[0]))
        if len(left) != len(right) or not left[0] == right[0] == whole[0] == BATCH:
            raise ExportError(
                f"{graph.described(node)}: its operands have shapes {left} and {right}; expected {_BROADCAST} "
                "(unsqueeze the smaller one)"
            )
        swapped = kind != "Sub" and left != whole and right == whole
        return Match(inputs[::-1] if swapped else inputs)

    return match


def _share(tape: Tape, op: Op, gradient: str, position: int) -> None:
    """Hand a gradient of the output on to an operand, summed over the axes along which it was repeated."""
    value = op.inputs[position]
    if tape.tensors[value].shape == tape.tensors[op.outputs[0]].shape:
        tape.pass_on(value, gradient)
    else:
        tape.to_input(op, "SumTo", (gradient,), position=position)


def _add_gradient(tape: Tape, op: Op) -> None:
    gy = tape.gradient(op.outputs[0])
    for position in range(2):
        _share(tape, op, gy, position)


def _sub_gradient(tape: Tape, op: Op) -> None:
    gy = tape.gradient(op.outputs[0])
    _share(tape, op, gy, 0)
    shape = tape.tensors[op.inputs[1]].shape
    if op.inputs[1] in tape.wanted and shape != tape.tensors[op.outputs[0]].shape:
        name = f"d::{op.outputs[0]}::summed"
        gy = tape.emit(Op("SumTo", (gy,), (name,), op.layer), Tensor(name, shape))
    tape.to_input(op, "Scale", (gy,), NEGATIVE, position=1)


def _mul_gradient(tape: Tape, op: Op) -> None:
    gy = tape.gradient(op.outputs[0])
    for position in range(2):
        tape.to_input(op, "MulGrad", (gy, op.inputs[1 - position]), position=position)


def _expander(kind: str) -> Callable[[Builder, Op], None]:
    def expand(builder: Builder, op: Op) -> None:
        builder.add(kind, *op.inputs, out=op.outputs[0])

    return expand


def _expand_sum_to(builder: Builder, op: Op) -> None:
    _sum_to(builder, op.inputs[0], builder.shape(op.inputs[0]), op.outputs[0])


def _expand_mul_grad(builder: Builder, op: Op) -> None:
    product = builder.add("Mul", *op.inputs)
    _sum_to(builder, product, builder.shape(op.inputs[0]), op.outputs[0])


def _sum_to(builder: Builder, value: str, shape: tuple[int, ...], out: str) -> None:
    pairs = enumerate(zip(shape, builder.shape(out), strict=True), start=1)
    axes = [axis for axis, (wide, narrow) in pairs if wide != narrow]
    if axes:
        builder.add("ReduceSum", value, builder.ints(axes), out=out, keepdims=1)
    else:
        builder.add("Identity", value, out=out)


_AS_SCALE: dict[tuple[str, int], Callable[[float], tuple[float, float]]] = {
    ("Add", 0): lambda c: (1.0, c),
    ("Add", 1): lambda c: (1.0, c),
    ("Sub", 0): lambda c: (-1.0, c),
    ("Sub", 1): lambda c: (1.0, -c),
    ("Mul", 0): lambda c: (c, 0.0),
    ("Mul", 1): lambda c: (c, 0.0),
    ("Div", 1): lambda c: (1 / c, 0.0),
}
"""(operator, place of the constant c) -> (factor, offset)."""


def _match_scale(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """An operation with a constant scalar, or a negation."""
    if node.op_type == "Neg" and graph.is_activation(node.input[0]):
        return Match((node.input[0],), attrs=NEGATIVE)
    for place, name in enumerate(node.input[:2]):
        made, x = _AS_SCALE.get((node.op_type, place)), node.input[(1 - place) % len(node.input)]
        constant = graph.constant(name) if made else None
        if made is None or constant is None or constant.size != 1 or not graph.is_activation(x):
            continue
        if graph.shape(x) == graph.shape(node.output[0]) and (node.op_type != "Div" or constant.item()):
            factor, offset = made(simplest(constant.item()))
            return Match((x,), attrs={"factor": factor, "offset": offset})
    return None


def _scale_gradient(tape: Tape, op: Op) -> None:
    gy = tape.gradient(op.outputs[0])
    if number(op, "factor") == 1:
        tape.pass_on(op.inputs[0], gy)
    else:
        tape.to_input(op, "Scale", (gy,), {**op.attrs, "offset": 0.0})


def _expand_scale(builder: Builder, op: Op) -> None:
    value, out, factor, offset = op.inputs[0], op.outputs[0], number(op, "factor"), number(op, "offset")
    if offset == 0:
        builder.add("Mul", value, builder.floats(factor), out=out)
        return
    scaled = value if factor == 1 else builder.add("Mul", value, builder.floats(factor))
    builder.add("Add", scaled, builder.floats(offset), out=out)


RULES = (
    Rule(
        "Add",
        _expander("Add"),
        _matcher("Add"),
        _add_gradient,
        signature="a, b -> y",
        meaning=f"elementwise sum ({_BROADCAST}); also where a value has several readers and gradients meet",
    ),
    Rule(
        "Sub",
        _expander("Sub"),
        _matcher("Sub"),
        _sub_gradient,
        signature="a, b -> y",
        meaning=f"elementwise difference ({_BROADCAST})",
    ),
    Rule(
        "Mul",
        _expander("Mul"),
        _matcher("Mul"),
        _mul_gradient,
        signature="a, b -> y",
        meaning=f"elementwise product ({_BROADCAST})",
    ),
    Rule(
        "Scale",
        _expand_scale,
        _match_scale,
        _scale_gradient,
        signature="x -> y",
        attributes="factor, offset",
        meaning="y = factor*x + offset; its own gradient, with offset 0",
    ),
    Rule(
        "SumTo",
        _expand_sum_to,
        signature="gy -> gx",
        meaning="sum over the axes where gx has length 1: the gradient of repeating",
    ),
    Rule(
        "MulGrad",
        _expand_mul_grad,
        signature="gy, other -> gx",
        meaning="gy * other, summed over the axes where gx has length 1",
    ),
)
