"""Which constants of an ONNX file are parameters: the file itself does not say."""

from __future__ import annotations

from collections import Counter
from math import prod

from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

_VIEWS = ("Unsqueeze", "Squeeze", "Reshape", "Transpose", "Cast", "Identity", "Flatten")
_WEIGHTED = (
    "Conv",
    "Gemm",
    "MatMul",
    "BatchNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "PRelu",
)
_ARITHMETIC = ("Add", "Mul", "Sub", "Expand")


def parameters(model: ModelProto) -> frozenset[str]:
    """Names of the initializers that are learned; Constant nodes that hold weights become initializers first.

    Weights of layers are (Conv, Gemm, MatMul, PRelu, scale and bias of norms; not running statistics), and what else
    is added, multiplied or expanded and has more than one element (position embeddings, layer scales, class tokens).
    Scale and bias inside the usual spelling of GroupNorm (Reshape, InstanceNormalization, Reshape) are its ones and
    zeros, thus constants. A constant that anything else reads too is none of these.

    Args:
        model: changed in place as said.
    """
    _copy_identities(model)
    _separate_vectors(model)
    graph = model.graph
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    constants = {node.output[0]: node for node in graph.node if node.op_type == "Constant"}
    for name, node in constants.items():
        held = next((item.t for item in node.attribute if item.name == "value"), None)
        if held is not None and _is_layer_weight(readers, name) and _is_learned(readers, name, held):
            tensor = graph.initializer.add()
            tensor.CopyFrom(held)
            tensor.name = name
            graph.node.remove(node)
    return frozenset(item.name for item in graph.initializer if _is_learned(readers, item.name, item))


def _copy_identities(model: ModelProto) -> None:
    """Give every Identity of an initializer a copy: torch's older exporter merges weights that happen to be equal."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if (
            node.op_type == "Identity"
            and node.input[0] in tensors
            and node.output[0] != model.graph.output[0].name
        ):
            tensors[node.output[0]] = model.graph.initializer.add()
            tensors[node.output[0]].CopyFrom(tensors[node.input[0]])
            tensors[node.output[0]].name = node.output[0]
            model.graph.node.remove(node)


def _separate_vectors(model: ModelProto) -> None:
    """Give every reader of a vector its own copy: exporters merge equal ones (the ones and zeros of fresh norms)."""
    graph = model.graph
    vectors = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and prod(tensor.dims) == max(tensor.dims, default=0) > 1
    }
    used: Counter[str] = Counter()
    for node in graph.node:
        for place, name in enumerate(node.input):
            used[name] += 1
            if name in vectors and used[name] > 1:
                copy = graph.initializer.add()
                copy.CopyFrom(vectors[name])
                node.input[place] = copy.name = f"{name}.{used[name]}"


def _is_layer_weight(readers: dict[str, list[NodeProto]], name: str) -> bool:
    return all(node.op_type in (*_WEIGHTED, *_VIEWS) for node in readers.get(name, ()))


def _is_learned(readers: dict[str, list[NodeProto]], name: str, tensor: TensorProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT or name not in readers:
        return False
    return all(_learns(readers, name, node, tensor) for node in readers[name])


def _learns(readers: dict[str, list[NodeProto]], name: str, node: NodeProto, tensor: TensorProto) -> bool:
    place = list(node.input).index(name)
    if node.op_type in _VIEWS:
        return place == 0 and _is_learned(readers, node.output[0], tensor)
    if node.op_type == "BatchNormalization":
        return place in (1, 2)
    if node.op_type == "InstanceNormalization":
        return place in (1, 2) and not _inside_group_norm(readers, node, tensor)
    if node.op_type in _ARITHMETIC:
        return numpy_helper.to_array(tensor).size > 1
    return node.op_type in _WEIGHTED


def _inside_group_norm(readers: dict[str, list[NodeProto]], node: NodeProto, tensor: TensorProto) -> bool:
    values = numpy_helper.to_array(tensor)
    after = {reader.op_type for reader in readers.get(node.output[0], ())}
    return after == {"Reshape"} and bool((values == values.flat[0]).all()) and values.flat[0] in (0.0, 1.0)
