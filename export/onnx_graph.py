"""A program as an ONNX file of standard operators (opset 18, IR 8), its weights in weights.safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from ..edge.program import Program, Tensor
from .onnx_builder import Builder
from .ops import RULES
from .ops.update import STEP
from .order import execution_order
from .passes import EliminateDeadCode, apply

OPSET, IR_VERSION = 18, 8
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
_LEARNED = ("param", "attention-param", "step-size")


@dataclass(frozen=True)
class External:
    """Where a tensor's bytes are: file (in the same directory), offset and length in bytes."""

    location: str
    offset: int
    length: int


def eval_graph(program: Program, weights: Mapping[str, External]) -> ModelProto:
    """Images to logits; parameters are initializers.

    Args:
        program: with a forward section.
        weights: where each parameter's bytes are.
    """
    return build_graph(program, weights, {"logits": program.outputs["logits"]}, adjustable=False)


def training_graph(program: Program, weights: Mapping[str, External], updated: frozenset[str]) -> ModelProto:
    """Samples (`images`) and the loss's inputs to loss, logits and the gradients of the updated layers.

    Every parameter is an input with a default.

    Args:
        program: a differentiated program.
        weights: where each parameter's bytes are.
        updated: layers whose gradients are wanted.
    """
    gradients = [name for layer in program.layers if layer.name in updated for name in layer.grads]
    outputs = {part: program.outputs[part] for part in ("loss", "logits")}
    return build_graph(program, weights, outputs | {name: name for name in gradients}, adjustable=True)


def build_graph(
    program: Program, weights: Mapping[str, External], outputs: Mapping[str, str], *, adjustable: bool
) -> ModelProto:
    """Expand what the outputs need into one graph.

    Args:
        program: any sections.
        weights: where the bytes of parameters are; others must be fed.
        outputs: name of the graph's output -> tensor of the program.
        adjustable: whether parameters are inputs with defaults, or fixed.
    """
    needed = apply(EliminateDeadCode(tuple(outputs.values())), program).program
    builder = Builder(needed.tensors)
    for op in execution_order(needed):
        RULES[op.kind].expand(builder, op)
    for name, tensor in outputs.items():
        if name != tensor:
            builder.add("Identity", tensor, out=name)
    learned = [tensor for tensor in needed.tensors.values() if tensor.role in _LEARNED]
    fed = [tensor for tensor in needed.tensors.values() if tensor.role == "input"]
    free = [tensor for tensor in learned if adjustable or tensor.name not in weights]
    step = (
        [helper.make_tensor_value_info(STEP, TensorProto.INT64, [])] if needed.sections.get("update") else []
    )
    graph = helper.make_graph(
        builder.nodes,
        "edge-adapt",
        [*map(_info, (*fed, *free)), *step],
        [_info(Tensor(name, program.tensors[tensor].shape)) for name, tensor in outputs.items()],
        [
            *builder.constants.values(),
            *(_initializer(t, weights[t.name]) for t in learned if t.name in weights),
        ],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edge-adapt")


def _info(tensor: Tensor) -> ValueInfoProto:
    shape: Sequence[int | str] = tensor.shape
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], shape)


def _initializer(tensor: Tensor, place: External) -> TensorProto:
    proto = TensorProto(name=tensor.name, data_type=_TYPES[tensor.dtype], dims=tensor.concrete(0))
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", place.location), ("offset", place.offset), ("length", place.length)):
        proto.external_data.add(key=key, value=str(value))
    return proto
