"""Spellings of one meaning in forward ONNX graphs: every cut becomes a Slice, every copy an Identity.

Split has several outputs, and torch's exporter writes `chunk` and `split` as a sequence and its elements. A Slice
that cuts nothing off (`x[:, 0]` starts with one), Dropout in inference and a cast of floats only copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ..errors import ExportError
from .batch_axis import BatchFirst, batch_first
from .batch_second import batch_never_second
from .written_out import written_out

_ALL = 2**31 - 1
_INTEGERS = (TensorProto.INT32, TensorProto.INT64)
Shapes = Mapping[str, Sequence[int | str]]
Constants = Mapping[str, NDArray[Any]]


def without_sequences(model: ModelProto) -> ModelProto:
    """Return a copy whose sequences of parts of a value (SplitToSequence, SequenceAt) are Slices.

    Raises:
        ExportError: the parts have no fixed length.
    """
    made = ModelProto()
    made.CopyFrom(model)
    constants = _constants(made.graph)
    splits = {node.output[0]: node for node in made.graph.node if node.op_type == "SplitToSequence"}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "SequenceAt" and node.input[0] in splits:
            element, tensors = _element(node, splits[node.input[0]], constants)
            nodes.append(element)
            made.graph.initializer.extend(tensors)
        elif node.op_type != "SplitToSequence":
            nodes.append(node)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def plain_nodes(graph: GraphProto, shapes: Shapes) -> BatchFirst:
    """Return the graph's nodes: cuts as Slice, copies as Identity, parts taken before transposing, rows written out.

    Args:
        graph: opset 18, topologically sorted.
        shapes: of its values; the batch axis is a string.

    Raises:
        ExportError: the parts of a split have no fixed length.
    """
    constants = _constants(graph)
    nodes: list[NodeProto] = []
    added: list[TensorProto] = []
    between: dict[str, Sequence[int | str]] = {}
    for node in graph.node:
        if node.op_type == "Split":
            for at in range(len(node.output)):
                part, tensors = _part(node, at, shapes)
                nodes.append(part)
                added += tensors
        elif other := written_out(node, constants, shapes):
            nodes += other.nodes
            added += other.tensors
            between |= other.shapes
        elif _copies(node, constants, shapes):
            nodes.append(_like(node, "Identity", [node.input[0]], node.output[0]))
        else:
            nodes.append(node)
    known = {**constants, **{tensor.name: numpy_helper.to_array(tensor) for tensor in added}}
    made = batch_first(nodes, known, shapes)
    made.tensors.extend(added)
    made.shapes.update(between)
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return batch_never_second(made, known, ranks, shapes)


def _constants(graph: GraphProto) -> Constants:
    """Integers that the graph holds."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    held = [(node.output[0], node.attribute[0]) for node in graph.node if node.op_type == "Constant"]
    tensors |= {name: attribute.t for name, attribute in held if attribute.name == "value"}
    whole = {name: tensor for name, tensor in tensors.items() if tensor.data_type in _INTEGERS}
    return {name: numpy_helper.to_array(tensor) for name, tensor in whole.items()}


def _element(node: NodeProto, split: NodeProto, constants: Constants) -> tuple[NodeProto, list[TensorProto]]:
    """One element of a split into a sequence."""
    lengths, place = (constants.get(name) for name in ((*split.input, "")[1], node.input[1]))
    if lengths is None or place is None or place < 0:
        raise ExportError(f"node {node.name!r} (SequenceAt): parts of a split must have fixed lengths")
    at = int(place)
    ends = [int(lengths) * (at + 1)] if lengths.ndim == 0 else np.cumsum(lengths[: at + 1])
    length = int(lengths) if lengths.ndim == 0 else int(lengths[at])
    return _slice(node, split.input[0], node.output[0], _axis(split), int(ends[-1]) - length, int(ends[-1]))


def _part(node: NodeProto, at: int, shapes: Shapes) -> tuple[NodeProto, list[TensorProto]]:
    """One output of a Split."""
    axis = _axis(node)
    lengths = [shapes[name][axis] if name in shapes else "" for name in node.output]
    fixed = [length for length in lengths if isinstance(length, int)]
    if len(fixed) != len(lengths):
        raise ExportError(f"node {node.name!r} (Split): parts of a split must have fixed lengths")
    return _slice(node, node.input[0], node.output[at], axis, sum(fixed[:at]), sum(fixed[: at + 1]))


def _axis(node: NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 0)


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


def _copies(node: NodeProto, constants: Constants, shapes: Shapes) -> bool:
    """Whether the first output is the first input: a Dropout in inference, a Slice that cuts nothing off."""
    if node.op_type == "Dropout":
        return not (node.input[2:] and node.input[2])
    if node.op_type != "Slice" or node.input[0] not in shapes:
        return False
    known = [constants[name] for name in node.input[1:] if name in constants]
    if len(known) + 1 != len(node.input) or known[0].any() or any((steps != 1).any() for steps in known[3:]):
        return False
    shape = shapes[node.input[0]]
    lengths = [shape[axis] for axis in (known[2] if known[2:] else range(known[0].size))]
    ends = zip(known[1], lengths, strict=True)
    return all(end >= (length if isinstance(length, int) else _ALL) for end, length in ends)
