"""Shapes of a forward ONNX graph: what is the same for two batch sizes is fixed, what grows with them is the batch."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ...edge.program import BATCH
from ..errors import ExportError
from .cuts import without_sequences

_SIZES = (2, 3)
_LARGEST = 4096
_RANDOM = ("RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
Shapes = dict[str, tuple[int, ...]]
Constants = dict[str, NDArray[Any]]


def with_shapes(
    file: Path, model: ModelProto, params: frozenset[str], sample_shape: tuple[int, ...] | None
) -> ModelProto:
    """The model with the shape of every value; its first axis is "N" where it is the batch.

    Shapes are inferred for batches of 2 and of 3. Small values that are constant and equal for both (sizes that
    the graph computes from shapes) become initializers.

    Args:
        file: for messages.
        model: one input.
        params: initializers that are parameters; they are never folded.
        sample_shape: shape of one sample where the file leaves axes open.

    Raises:
        ExportError: an axis of the input is open, the batch is fixed in a way that cannot be undone, or a shape depends
            on values.
    """
    sample = _sample_shape(file, model, sample_shape)
    free = _with_free_batch(without_sequences(model))
    (small, small_known), (large, large_known) = (
        _infer(file, free, params, (size, *sample)) for size in _SIZES
    )
    folded = {
        name: value
        for name, value in small_known.items()
        if name in large_known and np.array_equal(value, large_known[name])
    }
    return _rewritten(file, free, _combined(small, large), folded)


def _sample_shape(file: Path, model: ModelProto, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    info = model.graph.input[0]
    dims = info.type.tensor_type.shape.dim[1:]
    if wanted is None:
        wanted = tuple(dim.dim_value for dim in dims)
        if not info.type.tensor_type.shape.dim or not all(wanted):
            names = ", ".join(dim.dim_param or "?" for dim in dims if not dim.dim_value) or "all"
            raise ExportError(
                f"{file}: input {info.name!r} leaves axes open ({names}); give the shape of one sample, or export it "
                "with fixed sizes but for the batch"
            )
    fixed = [dim.dim_value or size for dim, size in zip(dims, wanted, strict=False)]
    if dims and (len(dims) != len(wanted) or fixed != list(wanted)):
        raise ExportError(
            f"{file}: input {info.name!r} has samples of shape {_text(dims)}, expected {wanted}"
        )
    return wanted


def _text(dims: Any) -> str:
    return f"({', '.join(dim.dim_param or str(dim.dim_value or '?') for dim in dims)})"


def _with_free_batch(model: ModelProto) -> ModelProto:
    """A copy; where the input's batch was fixed, reshapes to that batch keep the first axis instead."""
    free = ModelProto()
    free.CopyFrom(model)
    dims = free.graph.input[0].type.tensor_type.shape.dim
    fixed = dims[0].dim_value if dims else 0
    if not fixed:
        return free
    shapes = {
        info.name: _fixed(info)
        for info in onnx.shape_inference.infer_shapes(free, data_prop=True).graph.value_info
    }
    batched = {name for name, shape in shapes.items() if shape and shape[0] == fixed} | {
        free.graph.input[0].name
    }
    targets = {name for node in free.graph.node if node.op_type == "Reshape" and node.input[0] in batched
               for name in node.input[1:2]}  # fmt: skip
    for tensor in [*free.graph.initializer, *_held(free)]:
        if tensor.name in targets:
            target = numpy_helper.to_array(tensor).copy()
            if target.size and target[0] == fixed:
                target[0] = 0
                tensor.CopyFrom(numpy_helper.from_array(target, tensor.name))
    return free


def _held(model: ModelProto) -> list[TensorProto]:
    """Tensors of Constant nodes, under the names of their values."""
    found = []
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                attribute.t.name = node.output[0]
                found.append(attribute.t)
    return found


def _infer(
    file: Path, model: ModelProto, params: frozenset[str], shape: tuple[int, ...]
) -> tuple[Shapes, Constants]:
    """Shapes and constants for one input shape; inference and folding feed each other until nothing new is known."""
    known: Constants = {}
    while True:
        shapes = _inferred(file, _with_input(model, shape, known))
        before = len(known)
        _fold(model, params, shapes, known)
        if len(known) == before:
            return shapes, known


def _with_input(model: ModelProto, shape: tuple[int, ...], known: Constants) -> ModelProto:
    """A copy for shape inference: known values are initializers, recorded shapes are forgotten."""
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.value_info[:]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(graph.input[0].name, TensorProto.FLOAT, shape))
    output = graph.output[0]
    output.CopyFrom(helper.make_tensor_value_info(output.name, output.type.tensor_type.elem_type, None))
    _replace_known(made, known)
    for node in graph.node:
        if node.op_type == "GroupNormalization":  # inference does not know it
            node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output))
    return made


def _replace_known(model: ModelProto, known: Constants) -> None:
    graph = model.graph
    present = {tensor.name for tensor in graph.initializer}
    kept = [node for node in graph.node if not (len(node.output) == 1 and node.output[0] in known)]
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in known.items() if name not in present
    )


def _inferred(file: Path, model: ModelProto) -> Shapes:
    try:
        graph = onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        ).graph
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise ExportError(
            f"{file}: shapes do not fit when the batch grows ({text}); export it with a dynamic first axis"
        ) from error
    infos = (*graph.input, *graph.value_info, *graph.output)
    shapes = {info.name: _fixed(info) for info in infos}
    found = {name: shape for name, shape in shapes.items() if shape is not None}
    return found | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _fixed(info: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """The shape, if every axis is a possible number."""
    if not info.type.tensor_type.HasField("shape"):
        return None
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value for dim in dims) if all(map(_is_size, dims)) else None


def _is_size(dim: Any) -> bool:
    return bool(dim.HasField("dim_value") and dim.dim_value >= 0)


def _fold(model: ModelProto, params: frozenset[str], shapes: Shapes, known: Constants) -> None:
    """Add to `known` what shapes and small constants determine."""
    small = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name not in params and prod(tensor.dims) <= _LARGEST
    }
    for node in model.graph.node:
        if len(node.output) != 1 or node.output[0] in known:
            continue
        values = small | known
        if node.op_type == "Shape" and node.input[0] in shapes:
            like = np.empty(shapes[node.input[0]], np.bool_)
            known[node.output[0]] = _evaluate(model, node, {node.input[0]: like})
        elif _is_foldable(node, shapes) and all(name in values for name in node.input if name):
            known[node.output[0]] = _evaluate(
                model, node, {name: values[name] for name in node.input if name}
            )


def _is_foldable(node: NodeProto, shapes: Shapes) -> bool:
    """A small value that only the inputs determine; Constant is the one such node without inputs."""
    has_subgraph = any(attribute.HasField("g") for attribute in node.attribute)
    is_small = prod(shapes.get(node.output[0], ())) <= _LARGEST
    is_fixed = (bool(node.input) and node.op_type not in _RANDOM) or node.op_type == "Constant"
    return is_small and is_fixed and not has_subgraph


def _evaluate(model: ModelProto, node: NodeProto, values: Constants) -> NDArray[Any]:
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in values.items()
    ]
    output = helper.make_tensor_value_info(node.output[0], TensorProto.UNDEFINED, None)
    graph = helper.make_graph([node], "constant", inputs, [output])
    single = helper.make_model(graph, opset_imports=model.opset_import)
    (result,) = ReferenceEvaluator(single).run(None, values)
    return np.asarray(result)


def _combined(small: Shapes, large: Shapes) -> dict[str, tuple[int | str, ...]]:
    """Axes that are equal for both batch sizes are numbers, those that are the batch "N", others "2N" and so on."""
    return {
        name: tuple(_axis(a, b) for a, b in zip(shape, large[name], strict=True))
        for name, shape in small.items()
        if len(large.get(name, ())) == len(shape)
    }


def _axis(small: int, large: int) -> int | str:
    if small == large:
        return small
    times = small / _SIZES[0]
    return BATCH if times == 1 else f"{times:g}{BATCH}"


def _rewritten(
    file: Path, model: ModelProto, shapes: dict[str, tuple[int | str, ...]], folded: Constants
) -> ModelProto:
    _replace_known(model, folded)
    graph = model.graph
    types = {
        info.name: info.type.tensor_type.elem_type
        for info in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    del graph.value_info[:]
    for node in graph.node:
        for name in node.output:
            if name in shapes:
                kind = types.get(name, TensorProto.FLOAT)
                graph.value_info.append(helper.make_tensor_value_info(name, kind, shapes[name]))
    for info in (graph.input[0], graph.output[0]):
        if info.name not in shapes:
            raise ExportError(
                f"{file}: the shape of {info.name!r} depends on values of the data; fix it in the model"
            )
        info.CopyFrom(
            helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, shapes[info.name])
        )
    return model
