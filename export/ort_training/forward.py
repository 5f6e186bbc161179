"""The forward pass and its loss as one ONNX file that ONNX Runtime training can differentiate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ...edge.program import Op, Program, Tensor
from ..errors import ExportError
from ..onnx_builder import Builder
from ..onnx_graph import IR_VERSION, OPSET
from ..ops import RULES
from ..order import execution_order
from ..passes import EliminateDeadCode, apply
from .forms import FORMS

PLAIN = frozenset(
    {
        *(
            "Add",
            "Affine",
            "Clip",
            "Concat",
            "Conv",
            "Expand",
            "Fc",
            "Gelu",
            "LeakyRelu",
            "MatMul",
            "MaxPool",
        ),
        *(
            "Mean",
            "Mul",
            "Pad",
            "Relu",
            "Reshape",
            "Resize",
            "Scale",
            "Sigmoid",
            "Silu",
            "Slice",
            "Softmax",
            "Sub",
        ),
        *("Tanh", "Transpose"),
        *("SoftmaxCrossEntropy", "MeanSquaredError", "CategoricalPolicyGradient", "GaussianPolicyGradient"),
    }
)
"""Operations whose ordinary expansion ONNX Runtime training differentiates, and rightly (tested one by one)."""
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def forward_model(program: Program, values: Mapping[str, NDArray[np.float32]]) -> ModelProto:
    """Samples and loss inputs to `loss` and `logits`; parameters are initializers.

    The loss is the sum over the samples: the mean over the support set comes in through `step_scale`, so that it
    does not depend on the micro-batch.

    Args:
        program: forward and loss sections without attention.
        values: every parameter.

    Raises:
        ExportError: an operation that ONNX Runtime training cannot differentiate; names layer and way out.
    """
    outputs = {part: program.outputs[part] for part in ("loss", "logits")}
    needed = apply(EliminateDeadCode(tuple(outputs.values())), program).program
    builder = Builder(needed.tensors)
    weight, samples = (program.inputs[part] for part in ("sample_weight", "images"))
    ones = numpy_helper.from_array(np.ones(1, np.float32))
    builder.add("ConstantOfShape", builder.add("Shape", samples, start=0, end=1), value=ones, out=weight)
    for op in execution_order(needed):
        _expand(builder, op)
    for name, tensor in outputs.items():
        if name != tensor:
            builder.add("Identity", tensor, out=name)
    params = [tensor.name for tensor in needed.with_role("param")]
    graph = helper.make_graph(
        builder.nodes,
        "edge-adapt",
        [_value_info(tensor) for tensor in needed.with_role("input") if tensor.name != weight],
        [
            _value_info(Tensor("loss", ())),
            _value_info(replace(program.tensors[outputs["logits"]], name="logits")),
        ],
        [
            *builder.constants.values(),
            *(numpy_helper.from_array(np.asarray(values[name], np.float32), name) for name in params),
        ],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edge-adapt")


def _expand(builder: Builder, op: Op) -> None:
    if op.kind in FORMS:
        FORMS[op.kind](builder, op)
    elif op.kind in PLAIN:
        RULES[op.kind].expand(builder, op)
    else:
        raise ExportError(
            f"layer {op.layer!r}: ONNX Runtime training has no gradient for {op.kind}; replace it, or export"
            " without --ort-training (training.onnx runs in any onnxruntime)"
        )


def _value_info(tensor: Tensor) -> ValueInfoProto:
    shape: Sequence[int | str] = tensor.shape
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], shape)
