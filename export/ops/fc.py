"""Fully connected layer: a Gemm with the weight transposed."""

from __future__ import annotations

from onnx import NodeProto

from ...edge.program import Op
from ..errors import ExportError
from ..forward_graph import ForwardGraph, attributes
from ..onnx_builder import Builder, sample_scale
from ..tape import SAMPLE_WEIGHT, Tape
from .rule import Match, Rule, weight_and_bias

_PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "Gemm":
        return None
    attrs = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0} | attributes(node)
    weight, bias = weight_and_bias(graph, node)
    if weight is None or any(attrs[name] != value for name, value in _PLAIN.items()):
        raise ExportError(
            f"node {node.name!r} (Gemm): expected a linear layer, x w^T + b, with parameters w and b"
        )
    return Match((node.input[0],), (weight, bias))


def _gradient(tape: Tape, op: Op) -> None:
    x, w, b = op.inputs
    gy = tape.gradient(op.outputs[0])
    fw, bw = tape.attend(op, x, gy, axis=-1)
    tape.to_input(op, "FcInputGrad", (gy, w))
    tape.to_parameter(op, w, "FcWeightGrad", (x, gy, SAMPLE_WEIGHT, fw, bw))
    tape.to_parameter(op, b, "BiasGrad", (gy, SAMPLE_WEIGHT, bw), {"axis": -1})


def _expand(builder: Builder, op: Op) -> None:
    builder.add_many("Gemm", op.inputs, op.outputs, {"transB": 1})


def _expand_input_grad(builder: Builder, op: Op) -> None:
    builder.add("MatMul", *op.inputs, out=op.outputs[0])


def _expand_weight_grad(builder: Builder, op: Op) -> None:
    x, gy, sample_weight, fw, bw = op.inputs
    scaled = builder.add("Mul", gy, sample_scale(builder, sample_weight, bw))
    if fw:
        x = builder.add("Mul", x, fw)
    builder.add("Gemm", scaled, x, out=op.outputs[0], transA=1)


RULES = (
    Rule(
        "Fc",
        _expand,
        _match,
        _gradient,
        "fc",
        signature="x, w, [b] -> y",
        meaning="y = x w^T + b, w (O, I)",
    ),
    Rule("FcInputGrad", _expand_input_grad, signature="gy, w -> gx", meaning="the gradient of x"),
    Rule(
        "FcWeightGrad",
        _expand_weight_grad,
        signature="x, gy, sample_weight, [fw], [bw] -> gw",
        meaning="gw[o,i] = sum_n sample_weight[n]*bw[n,o]*fw[n,i] * gy[n,o]*x[n,i]",
    ),
)
