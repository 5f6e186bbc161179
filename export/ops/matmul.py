"""Products of two activations, matrix by matrix: attention scores and mixtures."""

from __future__ import annotations

from dataclasses import replace

from onnx import NodeProto

from ...edge.program import BATCH, Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, attributes
from ..tape import Tape
from .arithmetic import is_batched
from .rule import Match, Rule, integer


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type not in ("MatMul", "Einsum") or not all(is_batched(graph, name) for name in node.input):
        return None
    found = _einsum(graph, node) if node.op_type == "Einsum" else Match(tuple(node.input), attrs=_trans(0, 0))
    if found is None:
        return None
    a, b = (graph.shape(name) for name in found.inputs)
    if len(a) < 3 or a[:-2] != b[:-2] or a[0] != BATCH:
        raise ExportError(
            f"{graph.described(node)}: a product of shapes {a} and {b}; expected the same batch and leading axes, then "
            "a matrix each (unsqueeze and expand the smaller one)"
        )
    return _without_transposes(graph, found)


def _trans(a: int, b: int) -> dict[str, int]:
    return {"transA": a, "transB": b}


def _without_transposes(graph: ForwardGraph, found: Match) -> Match:
    """Read what is transposed only for the product as it was."""
    inputs, flags, nodes = list(found.inputs), dict(found.attrs), found.nodes
    for place, flag in enumerate(("transA", "transB")):
        node = graph.producer(inputs[place], "Transpose")
        if node is not None and _swaps_last(node, len(graph.shape(inputs[place]))):
            inputs[place] = node.input[0]
            flags[flag] = 1 - int(str(flags[flag]))
            nodes += 1
    return replace(found, inputs=tuple(inputs), attrs=flags, nodes=nodes)


def _swaps_last(node: NodeProto, rank: int) -> bool:
    axes = list(range(rank))
    return list(attributes(node).get("perm", axes[::-1])) == [*axes[:-2], rank - 1, rank - 2]


def _einsum(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """An Einsum that is a product of matrices: equal letters first, then two each, one of which is summed."""
    terms, _, result = str(attributes(node)["equation"]).replace(" ", "").partition("->")
    a, _, b = terms.partition(",")
    lead = result[:-2]
    if len(node.input) != 2 or not lead or not a[:-2] == b[:-2] == lead or "." in terms:
        return None
    if result[-2] not in a:
        a, b, inputs = b, a, tuple(node.input[::-1])
    else:
        inputs = tuple(node.input)
    rows, columns = result[-2], result[-1]
    summed = (set(a[-2:]) & set(b[-2:])) - set(result)
    if set(a[-2:]) != {rows, *summed} or set(b[-2:]) != {columns, *summed} or len(summed) != 1:
        return None
    return Match(inputs, attrs=_trans(int(a[-1] == rows), int(b[-2] == columns)))


def _gradient(tape: Tape, op: Op) -> None:
    """y = A B with A = a or a^T: the gradients are gy B^T and A^T gy, transposed where the operand was."""
    a, b = op.inputs
    gy, swap_a, swap_b = tape.gradient(op.outputs[0]), integer(op, "transA"), integer(op, "transB")
    if swap_a:
        tape.to_input(op, "MatMul", (b, gy), _trans(swap_b, 1), position=0)
    else:
        tape.to_input(op, "MatMul", (gy, b), _trans(0, 1 - swap_b), position=0)
    if swap_b:
        tape.to_input(op, "MatMul", (gy, a), _trans(1, swap_a), position=1)
    else:
        tape.to_input(op, "MatMul", (a, gy), _trans(1 - swap_a, 0), position=1)


def _expand(builder: Builder, op: Op) -> None:
    operands = []
    for name, flag in zip(op.inputs, ("transA", "transB"), strict=True):
        rank = len(builder.shape(name)) + 1
        perm = [*range(rank - 2), rank - 1, rank - 2]
        operands.append(builder.add("Transpose", name, perm=perm) if integer(op, flag) else name)
    builder.add("MatMul", *operands, out=op.outputs[0])


RULES = (
    Rule(
        "MatMul",
        _expand,
        _match,
        _gradient,
        signature="a, b -> y",
        attributes="transA, transB (0 or 1)",
        meaning="matrix products over the last two axes, an operand transposed first where its attribute says so; "
        "leading axes equal; its own gradients",
    ),
)
