"""A part of a transposed value is a transposed part: attention that moves q, k, v before the batch keeps it first.

`q, k, v = qkv.reshape(N, T, 3, heads, d).permute(2, 0, 3, 1, 4)` (timm and others) puts an axis of three in front,
only to take it apart again. Written the other way round, first the part, then the transpose, the batch stays first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Axes = Sequence[int | str]


@dataclass
class BatchFirst:
    """Nodes in which parts of transposed values are transposed parts.

    Attributes:
        nodes: topologically sorted, as the graph computes.
        tensors: initializers that new nodes read.
        shapes: of values that were not there before.
    """

    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)
    shapes: dict[str, Axes] = field(default_factory=dict)


def batch_first(
    nodes: Sequence[NodeProto], constants: Mapping[str, NDArray[Any]], shapes: Mapping[str, Axes]
) -> BatchFirst:
    """Rewrite nodes.

    Args:
        nodes: topologically sorted.
        constants: integers that nodes read, by name.
        shapes: of values.
    """
    made = BatchFirst()
    producers = {name: node for node in nodes for name in node.output}
    for node in nodes:
        place, source = _part(node, producers, constants)
        turn = _origin(source, producers)
        perm = _perm(turn) if turn is not None and turn.op_type == "Transpose" else []
        if turn is None or place is None or not perm or perm[0] == 0 or turn.input[0] not in shapes:
            made.nodes.append(node)
            continue
        axis, shape = perm[0], shapes[turn.input[0]]
        part, index = f"{node.output[0]}::part", numpy_helper.from_array(place, f"{node.output[0]}::index")
        made.tensors.append(index)
        made.shapes[part] = [*shape[:axis], *shape[axis + 1 :]]
        rest = [other - (other > axis) for other in perm[1:]]
        for one in (
            helper.make_node("Gather", [turn.input[0], index.name], [part], node.name, axis=axis),
            helper.make_node("Transpose", [part], [node.output[0]], node.name, perm=rest),
        ):
            one.metadata_props.extend(node.metadata_props)
            made.nodes.append(one)
    return made


def _part(
    node: NodeProto, producers: Mapping[str, NodeProto], constants: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any] | None, str]:
    """The element of the first axis that a node takes, and of which value; None if it does something else."""
    if node.op_type == "Gather" and _attribute(node, "axis", 0) == 0:
        place = constants.get(node.input[1])
        return (place, node.input[0]) if place is not None and place.ndim == 0 else (None, "")
    if node.op_type != "Squeeze" or _only(constants, node.input[1:]) != [0]:
        return None, ""
    cut = producers.get(node.input[0])
    if cut is None or cut.op_type != "Slice" or _only(constants, cut.input[3:4]) != [0]:
        return None, ""
    start, end = (_only(constants, [name]) for name in cut.input[1:3])
    single = start is not None and end is not None and len(start) == 1 and end == [start[0] + 1]
    return (np.array(start[0]), cut.input[0]) if single and start else (None, "")


def _only(constants: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[int] | None:
    """The values of the one constant that is named."""
    known = [constants[name].reshape(-1).tolist() for name in names if name in constants]
    return known[0] if len(known) == len(names) == 1 else None


def _origin(value: str, producers: Mapping[str, NodeProto]) -> NodeProto | None:
    node = producers.get(value)
    while node is not None and node.op_type == "Identity":
        node = producers.get(node.input[0])
    return node


def _perm(node: NodeProto) -> list[int]:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), [])


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)
