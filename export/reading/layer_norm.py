"""LayerNorm as exporters spelled it before opset 17 becomes LayerNormalization (Ba et al. 2016, eq. 3 and 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

_UNITS = "::ones"
_ZEROS = "::zeros"


def fuse_layer_norms(model: ModelProto) -> None:
    """Replace (x - mean) / sqrt(mean((x - mean)^2) + eps), times scale, plus bias, by one node; in place.

    Args:
        model: opset 17 or newer, with the shape of every value; constants are initializers.
    """
    graph = _Graph(model.graph)
    for node in list(model.graph.node):
        if node.op_type == "Div":
            _fuse(graph, node)


class _Graph:
    """Look-ups on a graph that changes: the output of a fused norm is only renamed."""

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self.producers = {name: node for node in graph.node for name in node.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        infos = (*graph.input, *graph.value_info)
        self.shapes = {
            info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in infos
        }

    def producer(self, value: str, *kinds: str) -> NodeProto | None:
        node = self.producers.get(value)
        return node if node is not None and node.op_type in kinds else None

    def constant(self, value: str) -> NDArray[Any] | None:
        tensor = self.constants.get(value)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def reader(self, value: str, kind: str) -> NodeProto | None:
        """The only node that reads a value, if it is of this kind."""
        readers = [node for node in self.graph.node if value in node.input]
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None


@dataclass(frozen=True)
class _Normal:
    """x without mean, by its deviation, over its last `dims` axes."""

    x: str
    dims: int
    eps: float


def _fuse(graph: _Graph, div: NodeProto) -> None:
    normal = _normal(graph, div)
    if normal is None:
        return
    shape = graph.shapes[normal.x][-normal.dims :]
    last, scale = _operand(graph, div, "Mul", shape)
    last, bias = _operand(graph, last, "Add", shape) if scale else (last, "")
    scale = scale or _filled(graph, f"{div.output[0]}{_UNITS}", np.ones(shape, np.float32))
    bias = bias or _filled(graph, f"{div.output[0]}{_ZEROS}", np.zeros(shape, np.float32))
    last.CopyFrom(
        helper.make_node(
            "LayerNormalization", [normal.x, scale, bias], [last.output[0]], last.name, axis=-normal.dims,
            epsilon=normal.eps,
        )
    )  # fmt: skip


def _normal(graph: _Graph, div: NodeProto) -> _Normal | None:
    centred = graph.producer(div.input[0], "Sub")
    root = graph.producer(div.input[1], "Sqrt")
    total = graph.producer(root.input[0], "Add") if root else None
    if centred is None or total is None:
        return None
    for place in (0, 1):
        eps, variance = graph.constant(total.input[1 - place]), total.input[place]
        if eps is None or eps.size != 1:
            continue
        dims = _mean_of_squares(graph, variance, centred)
        if dims and dims == _mean(graph, centred.input[1], centred.input[0]):
            return _Normal(centred.input[0], dims, float(eps.item()))
    return None


def _mean_of_squares(graph: _Graph, value: str, centred: NodeProto) -> int:
    """Number of trailing axes that are averaged; 0 if the value is something else."""
    mean = graph.producer(value, "ReduceMean")
    square = graph.producer(mean.input[0], "Pow", "Mul") if mean else None
    if square is None:
        return 0
    first, second = (graph.producer(name, "Sub") for name in (square.input[0], square.input[-1]))
    power = graph.constant(square.input[1])
    squared = power is not None and power.size == 1 and power.item() == 2
    is_square = squared if square.op_type == "Pow" else second is not None and second.input == centred.input
    return (
        _mean(graph, value, square.output[0]) if is_square and first and first.input == centred.input else 0
    )


def _mean(graph: _Graph, value: str, of: str) -> int:
    """Number of trailing axes over which a value is the mean of another, with keepdims; else 0."""
    mean = graph.producer(value, "ReduceMean")
    if mean is None or mean.input[0] != of or of not in graph.shapes or len(mean.input) < 2:
        return 0
    keeps = all(helper.get_attribute_value(a) for a in mean.attribute if a.name == "keepdims")
    axes, rank = graph.constant(mean.input[1]), len(graph.shapes[of])
    if axes is None or not keeps:
        return 0
    trailing = sorted(int(axis) % rank for axis in axes)
    return (
        len(trailing) if trailing == list(range(rank - len(trailing), rank)) and len(trailing) < rank else 0
    )


def _operand(graph: _Graph, node: NodeProto, kind: str, shape: list[int]) -> tuple[NodeProto, str]:
    """The only reader of a node, if it takes an initializer of this shape, and that; else the node itself and ""."""
    reader = graph.reader(node.output[0], kind)
    for name in reader.input if reader is not None else ():
        if reader is not None and name in graph.constants and list(graph.constants[name].dims) == shape:
            return reader, name
    return node, ""


def _filled(graph: _Graph, name: str, value: NDArray[np.float32]) -> str:
    graph.graph.initializer.append(numpy_helper.from_array(value, name))
    return name
