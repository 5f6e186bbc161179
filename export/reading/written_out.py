"""ONNX operators that are others in a row: a sum is a mean times a number, a pixel shuffle moves axes twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

Axes = Sequence[int | str]


@dataclass
class WrittenOut:
    """What replaces a node: nodes, the initializers they read, and the shapes of values between them."""

    node: NodeProto
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)
    shapes: dict[str, Axes] = field(default_factory=dict)

    def add(self, kind: str, inputs: Sequence[str], shape: Axes | None, **attrs: Any) -> str:
        """Add a node and return its output: the replaced node's where `shape` is None."""
        output = self.node.output[0] if shape is None else f"{self.node.output[0]}::{len(self.nodes)}"
        made = helper.make_node(kind, inputs, [output], self.node.name, **attrs)
        made.metadata_props.extend(self.node.metadata_props)
        self.nodes.append(made)
        if shape is not None:
            self.shapes[output] = shape
        return output

    def constant(self, value: NDArray[Any]) -> str:
        """Add an initializer."""
        name = f"{self.node.output[0]}::constant{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(value, name))
        return name


def written_out(
    node: NodeProto, constants: Mapping[str, NDArray[Any]], shapes: Mapping[str, Axes]
) -> WrittenOut | None:
    """Return what replaces a ReduceSum, DepthToSpace or SpaceToDepth of fixed axes; None for other nodes."""
    if node.op_type not in ("ReduceSum", "DepthToSpace", "SpaceToDepth") or node.input[0] not in shapes:
        return None
    return _sum(node, constants, shapes) if node.op_type == "ReduceSum" else _shuffle(node, shapes)


def _sum(
    node: NodeProto, constants: Mapping[str, NDArray[Any]], shapes: Mapping[str, Axes]
) -> WrittenOut | None:
    axes = constants.get((*node.input, "")[1])
    shape, result = (shapes.get(name, ()) for name in (node.input[0], node.output[0]))
    if axes is None or not axes.size or not shape:
        return None
    lengths = [shape[axis] for axis in axes.reshape(-1)]
    fixed = [length for length in lengths if isinstance(length, int)]
    if len(fixed) < len(lengths):
        return None
    made = WrittenOut(node)
    mean = made.add("ReduceMean", node.input, result, **_attributes(node))
    made.add("Mul", [mean, made.constant(np.float32(prod(fixed)))], None)
    return made


def _shuffle(node: NodeProto, shapes: Mapping[str, Axes]) -> WrittenOut:
    """(N, C, H, W): blocks of pixels to channels, or channels to blocks (mode CRD: torch's PixelShuffle)."""
    attrs = _attributes(node)
    block, batch = int(attrs["blocksize"]), shapes[node.input[0]][0]
    channels, height, width = (int(axis) for axis in shapes[node.input[0]][1:])
    if node.op_type == "SpaceToDepth":
        apart, perm = (channels, height // block, block, width // block, block), (0, 3, 5, 1, 2, 4)
    elif attrs.get("mode", b"DCR") == b"CRD":
        apart, perm = (channels // block**2, block, block, height, width), (0, 1, 4, 2, 5, 3)
    else:
        apart, perm = (block, block, channels // block**2, height, width), (0, 3, 4, 1, 5, 2)
    made = WrittenOut(node)
    split = made.add("Reshape", [node.input[0], made.constant(np.array([-1, *apart]))], (batch, *apart))
    moved = [(batch, *apart)[axis] for axis in perm]
    turned = made.add("Transpose", [split], moved, perm=perm)
    target = [-1, *(int(axis) for axis in shapes[node.output[0]][1:])]
    made.add("Reshape", [turned, made.constant(np.array(target))], None)
    return made


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
