"""Fully connected layer, x w^T + b over the last axis: what Gemm, or MatMul and Add, say in ONNX."""

from __future__ import annotations

from dataclasses import replace

from onnx import NodeProto

from ...edge.program import BATCH, Op
from ..errors import ExportError
from ..onnx_builder import Builder, sample_scale
from ..reading.graph import ForwardGraph, attributes
from ..tape import SAMPLE_WEIGHT, Tape
from .patterns import either_order
from .rule import Match, Param, Rule, refuse_computed, unless_zero, weight_and_bias

_DEFAULTS = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """Recognise Gemm(x, w, [b]), MatMul(x, w), and either followed by Add of a vector."""
    for product, added in either_order(node, "Add"):
        maker = graph.producer(product)
        match = None if maker is None else _product(graph, maker)
        bias = graph.param("bias", added) if match else None
        if match is None or bias is None or match.params[1] is not None:
            continue
        outputs = match.params[0].value.shape[0] if match.params[0] else 0
        places = graph.shape(match.inputs[0])[:-1]
        if _vector(bias) == outputs and graph.shape(node.output[0]) == (*places, outputs):
            params = (match.params[0], unless_zero(replace(bias, value=bias.value.reshape(-1))))
            return Match(match.inputs, params, nodes=2)
    return _product(graph, node)


def _product(graph: ForwardGraph, node: NodeProto) -> Match | None:
    readers = {"Gemm": _gemm, "MatMul": _mat_mul}
    return readers[node.op_type](graph, node) if node.op_type in readers else None


def _gemm(graph: ForwardGraph, node: NodeProto) -> Match:
    attrs = _DEFAULTS | attributes(node)
    weight, bias = weight_and_bias(graph, node)
    plain = attrs["alpha"] == 1 and (bias is None or attrs["beta"] == 1) and not attrs["transA"]
    weight = weight if weight is None or attrs["transB"] else _turned(weight)
    if weight is None or not plain or not _fits(graph, node.input[0], weight):
        raise ExportError(
            f"{graph.described(node)}: expected a linear layer, x w + b or x w^T + b, with parameters w and b, the "
            "batch as rows of x, and alpha = beta = 1"
        )
    outputs = weight.value.shape[0]
    if bias is not None and _vector(bias) != outputs:
        raise ExportError(
            f"{graph.described(node)}: the bias has shape {bias.value.shape}; expected ({outputs},)"
        )
    return Match((node.input[0],), (weight, bias and replace(bias, value=bias.value.reshape(-1))))


def _mat_mul(graph: ForwardGraph, node: NodeProto) -> Match | None:
    left, right = (graph.param("weight", name) for name in node.input)
    if left is None and right is None:
        refuse_computed(graph, node)
        return None
    weight = None if right is None else _turned(right)
    if left is not None or weight is None or not _fits(graph, node.input[0], weight):
        raise ExportError(
            f"{graph.described(node)}: expected x w with a matrix w as parameter; write w x as x.transpose(...) w, "
            "and keep the parameter as it is used"
        )
    return Match((node.input[0],), (weight, None))


def _turned(weight: Param) -> Param:
    """The weight of x w as that of x w^T."""
    value = weight.value.reshape(weight.value.shape[-2:]) if weight.value.ndim > 2 else weight.value
    return replace(weight, value=value.T, transposed=not weight.transposed)


def _fits(graph: ForwardGraph, x: str, weight: Param) -> bool:
    """Whether a weight (O, I) takes the last axis of a batch."""
    shape = graph.shape(x)
    return (
        weight.value.ndim == 2 and len(shape) > 1 and shape[0] == BATCH and shape[-1] == weight.value.shape[1]
    )


def _vector(bias: Param) -> int:
    """The bias's length if at most one of its axes, the last, is longer than 1, else 0."""
    return bias.value.size if bias.value.shape[-1:] == (bias.value.size,) else 0


def _gradient(tape: Tape, op: Op) -> None:
    x, w, b = op.inputs
    gy = tape.gradient(op.outputs[0])
    fw, bw = tape.attend(op, x, gy, axis=-1)
    tape.to_input(op, "FcInputGrad", (gy, w))
    tape.to_parameter(op, w, "FcWeightGrad", (x, gy, SAMPLE_WEIGHT, fw, bw))
    tape.to_parameter(op, b, "BiasGrad", (gy, SAMPLE_WEIGHT, bw), {"axis": -1})


def _expand(builder: Builder, op: Op) -> None:
    x, w, b = op.inputs
    if len(builder.shape(x)) == 1:
        builder.add_many("Gemm", op.inputs, op.outputs, {"transB": 1})
        return
    turned = builder.add("Transpose", w, perm=[1, 0])
    product = builder.add("MatMul", x, turned, out="" if b else op.outputs[0])
    if b:
        builder.add("Add", product, b, out=op.outputs[0])


def _expand_input_grad(builder: Builder, op: Op) -> None:
    builder.add("MatMul", *op.inputs, out=op.outputs[0])


def _expand_weight_grad(builder: Builder, op: Op) -> None:
    x, gy, sample_weight, fw, bw = op.inputs
    places = len(builder.shape(x)) - 1
    scaled = builder.add("Mul", gy, _over_places(builder, sample_scale(builder, sample_weight, bw), places))
    if fw:
        x = builder.add("Mul", x, _over_places(builder, fw, places))
    if places:
        outputs, inputs = builder.shape(op.outputs[0])
        scaled, x = builder.reshape(scaled, (-1, outputs)), builder.reshape(x, (-1, inputs))
    builder.add("Gemm", scaled, x, out=op.outputs[0], transA=1)


def _over_places(builder: Builder, scale: str, places: int) -> str:
    """Give (N, C) the axes between the batch and the last."""
    return builder.add("Unsqueeze", scale, builder.ints(list(range(1, places + 1)))) if places else scale


RULES = (
    Rule(
        "Fc",
        _expand,
        _match,
        _gradient,
        "fc",
        signature="x, w, [b] -> y",
        meaning="y = x w^T + b, x (N, ..., I), w (O, I), y (N, ..., O)",
    ),
    Rule("FcInputGrad", _expand_input_grad, signature="gy, w -> gx", meaning="the gradient of x"),
    Rule(
        "FcWeightGrad",
        _expand_weight_grad,
        signature="x, gy, sample_weight, [fw], [bw] -> gw",
        meaning="gw[o,i] = sum_n sample_weight[n]*bw[n,o]*fw[n,i] * gy[n,o]*x[n,i], the product summed over the axes "
        "between",
    ),
)
