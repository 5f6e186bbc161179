"""Spellings of one meaning in forward ONNX graphs: every cut becomes a Slice, every copy an Identity.

Split has several outputs, and torch's exporter writes `chunk` and `split` as a sequence and its elements. A Slice
that cuts nothing off (`x[:, 0]` starts with one), Dropout in inference and a cast of floats only copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from .errors import ExportError

_ALL = 2**31 - 1
Shapes = Mapping[str, Sequence[int | str]]


def plain_nodes(graph: GraphProto, shapes: Shapes) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the graph's nodes, cuts as Slice and copies as Identity, and the initializers that these read.

    Args:
        graph: opset 18, topologically sorted.
        shapes: of its values; the batch axis is a string.

    Raises:
        ExportError: the parts of a split have no fixed length.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    producers = {name: node for node in graph.node for name in node.output}
    nodes, added = [], []
    for node in graph.node:
        if node.op_type == "Split":
            parts = list(node.output)
            made = [_part(node, node.input[0], parts, at, shapes) for at in range(len(parts))]
            nodes += [slice_node for slice_node, _ in made]
            added += [tensor for _, tensors in made for tensor in tensors]
        elif node.op_type == "SequenceAt" and _is_split(producers.get(node.input[0])):
            slice_node, tensors = _element(node, producers[node.input[0]], constants, shapes)
            nodes.append(slice_node)
            added += tensors
        elif _copies(node, constants, shapes):
            nodes.append(_like(node, "Identity", [node.input[0]], node.output[0]))
        elif (sizes := _fixed_sizes(node, shapes)) is not None:
            added.append(sizes)
        elif not _is_split(node):
            nodes.append(node)
    return nodes, added


def _fixed_sizes(node: NodeProto, shapes: Shapes) -> TensorProto | None:
    """A Shape of axes that are not the batch, as the numbers it always is."""
    if node.op_type != "Shape" or node.input[0] not in shapes:
        return None
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    axes = list(shapes[node.input[0]])[slice(bounds.get("start", 0), bounds.get("end"))]
    fixed = [axis for axis in axes if isinstance(axis, int)]
    return numpy_helper.from_array(np.array(fixed, np.int64), node.output[0]) if fixed == axes else None


def _is_split(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "SplitToSequence"


def _element(
    node: NodeProto, split: NodeProto, constants: Mapping[str, TensorProto], shapes: Shapes
) -> tuple[NodeProto, list[TensorProto]]:
    """One element of a split into a sequence."""
    lengths, position = (_ints(constants, name) for name in ((*split.input, "")[1], node.input[1]))
    if lengths is None or position is None:
        raise ExportError(f"node {node.name!r} (SequenceAt): parts of a split must have fixed lengths")
    axis = _axis(split, shapes[split.input[0]])
    whole = shapes[split.input[0]][axis]
    if lengths.ndim == 0 and isinstance(whole, int):
        size = int(lengths)
        lengths = np.minimum(size, whole - np.arange(0, whole, size))
    at = int(position) % max(lengths.size, 1)
    ends = np.cumsum(lengths)
    return _slice(node, split.input[0], node.output[0], axis, int(ends[at] - lengths[at]), int(ends[at]))


def _part(
    node: NodeProto, source: str, parts: Sequence[str], at: int, shapes: Shapes
) -> tuple[NodeProto, list[TensorProto]]:
    """One output of a Split."""
    axis = _axis(node, shapes[source])
    lengths = [shapes.get(name, (0,) * (axis + 1))[axis] for name in parts]
    fixed = [length for length in lengths if isinstance(length, int)]
    if len(fixed) != len(lengths) or not all(fixed):
        raise ExportError(f"node {node.name!r} (Split): parts of a split must have fixed lengths")
    return _slice(node, source, parts[at], axis, sum(fixed[:at]), sum(fixed[: at + 1]))


def _axis(node: NodeProto, shape: Sequence[int | str]) -> int:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return axis % len(shape)


def _slice(
    like: NodeProto, source: str, output: str, axis: int, start: int, end: int
) -> tuple[NodeProto, list[TensorProto]]:
    values = {"starts": start, "ends": end, "axes": axis}
    tensors = [numpy_helper.from_array(np.array([v], np.int64), f"{output}::{n}") for n, v in values.items()]
    return _like(like, "Slice", [source, *(tensor.name for tensor in tensors)], output), tensors


def _like(node: NodeProto, kind: str, inputs: Sequence[str], output: str) -> NodeProto:
    made = helper.make_node(kind, inputs, [output], node.name)
    made.metadata_props.extend(node.metadata_props)
    return made


def _copies(node: NodeProto, constants: Mapping[str, TensorProto], shapes: Shapes) -> bool:
    """Whether the first output is the first input: a Dropout in inference, a Slice that cuts nothing off."""
    if node.op_type == "Dropout":
        training = numpy_helper.to_array(constants[node.input[2]]) if len(node.input) > 2 else np.False_
        return not training
    if node.op_type != "Slice" or node.input[0] not in shapes:
        return False
    given = [_ints(constants, name) for name in node.input[1:]]
    known = [values for values in given if values is not None]
    if len(known) != len(given) or known[0].any() or any((steps != 1).any() for steps in known[3:]):
        return False
    shape = shapes[node.input[0]]
    lengths = [shape[axis] for axis in (known[2] if known[2:] else range(known[0].size))]
    ends = zip(known[1], lengths, strict=True)
    return all(end >= (length if isinstance(length, int) else _ALL) for end, length in ends)


def _ints(constants: Mapping[str, TensorProto], name: str) -> NDArray[np.int64] | None:
    return numpy_helper.to_array(constants[name]).astype(np.int64) if name in constants else None
