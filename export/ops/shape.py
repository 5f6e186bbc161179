"""Operations that move whole values without computing: reshape, transpose, join."""

from __future__ import annotations

from math import prod

from onnx import NodeProto

from ...edge.program import BATCH, Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, attributes
from ..tape import Tape
from .arithmetic import is_batched
from .rule import Match, Rule, integer, integers


def _match_reshape(graph: ForwardGraph, node: NodeProto) -> Match | None:
    copied = node.op_type == "Cast" and attributes(node)["to"] == 1
    if not copied and node.op_type not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return None
    if not is_batched(graph, node.input[0]):
        return None
    try:
        before, after = (graph.shape(name) for name in (node.input[0], node.output[0]))
    except ExportError:
        before, after = (), ()
    if before[:1] == after[:1] == (BATCH,) and prod(map(int, before[1:])) == prod(map(int, after[1:])):
        return Match((node.input[0],))
    raise ExportError(
        f"{graph.described(node)}: it merges the batch axis with another or moves it; keep the samples apart as the "
        "first axis: x.flatten(1), x.reshape(x.shape[0], ...), and layers that take any number of leading axes"
    )


def _reshape_gradient(tape: Tape, op: Op) -> None:
    tape.to_input(op, "Reshape", (tape.gradient(op.outputs[0]),))


def _expand_reshape(builder: Builder, op: Op) -> None:
    builder.reshape(op.inputs[0], (-1, *builder.shape(op.outputs[0])), out=op.outputs[0])


def _match_transpose(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type == "Reshape":
        return _match_folded_transpose(graph, node)
    if node.op_type != "Transpose" or not is_batched(graph, node.input[0]):
        return None
    rank = len(graph.shape(node.input[0]))
    perm = [int(axis) for axis in attributes(node).get("perm", range(rank)[::-1])]
    if perm[0] != 0:
        raise ExportError(
            f"{graph.described(node)}: it moves the batch axis (perm {perm}); keep the samples as the first axis "
            "(batch_first=True where a layer has that option)"
        )
    return Match((node.input[0],), attrs={"perm": perm})


def _match_folded_transpose(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """Reshape(Transpose(Reshape(x, (-1, a, b)))) back to x's leading axes: the key of torch's attention."""
    turn = graph.producer(node.input[0], "Transpose")
    fold = graph.producer(turn.input[0], "Reshape") if turn is not None else None
    if turn is None or fold is None or list(attributes(turn).get("perm", ())) != [0, 2, 1]:
        return None
    before, after = graph.shape(fold.input[0]), graph.shape(node.output[0])
    target = graph.constant(fold.input[1])
    if target is None or len(before) < 3 or target.tolist() != [-1, *before[-2:]]:
        return None
    rank = len(before)
    if before[0] != BATCH or after != (*before[:-2], before[-1], before[-2]):
        return None
    return Match((fold.input[0],), nodes=3, attrs={"perm": [*range(rank - 2), rank - 1, rank - 2]})


def _transpose_gradient(tape: Tape, op: Op) -> None:
    perm = integers(op, "perm")
    inverse = sorted(range(len(perm)), key=perm.__getitem__)
    tape.to_input(op, "Transpose", (tape.gradient(op.outputs[0]),), {"perm": inverse})


def _expand_transpose(builder: Builder, op: Op) -> None:
    builder.add("Transpose", op.inputs[0], out=op.outputs[0], perm=integers(op, "perm"))


def _match_concat(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "Concat" or not graph.is_activation(node.output[0]):
        return None
    axis = attributes(node)["axis"] % len(graph.shape(node.output[0]))
    if axis == 0 or not all(is_batched(graph, name) for name in node.input):
        raise ExportError(
            f"{graph.described(node)}: expected values of every sample, joined along another axis than the batch; "
            "expand a constant or a parameter to the batch first: p.expand(x.shape[0], ...)"
        )
    return Match(tuple(node.input), attrs={"axis": axis})


def _concat_gradient(tape: Tape, op: Op) -> None:
    gy, axis, start = tape.gradient(op.outputs[0]), integer(op, "axis"), 0
    for position, name in enumerate(op.inputs):
        shape = [int(length) for length in tape.tensors[name].shape[1:]]
        starts = [0] * len(shape)
        starts[axis - 1] = start
        ends = [first + length for first, length in zip(starts, shape, strict=True)]
        tape.to_input(op, "Slice", (gy,), {"starts": starts, "ends": ends}, position)
        start = ends[axis - 1]


def _expand_concat(builder: Builder, op: Op) -> None:
    builder.add("Concat", *op.inputs, out=op.outputs[0], axis=integer(op, "axis"))


RULES = (
    Rule(
        "Reshape",
        _expand_reshape,
        _match_reshape,
        _reshape_gradient,
        signature="x -> y",
        meaning="the same bytes in the shape of y; its own gradient",
    ),
    Rule(
        "Transpose",
        _expand_transpose,
        _match_transpose,
        _transpose_gradient,
        signature="x -> y",
        attributes="perm (perm[0] = 0)",
        meaning="axis i of y is axis perm[i] of x; its own gradient, with the inverse perm",
    ),
    Rule(
        "Concat",
        _expand_concat,
        _match_concat,
        _concat_gradient,
        signature="a, b, ... -> y",
        attributes="axis (never 0)",
        meaning="the inputs one after the other; its gradients are Slices",
    ),
)
