"""Smooth activations: one gradient operation each, from the output where that is enough, else from the input."""

from __future__ import annotations

from onnx import NodeProto

from ...edge.program import Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, attributes
from ..tape import Tape
from .activation import shifted_relu6
from .patterns import either_order, near, products, scaled, simplest
from .rule import Match, Rule, number


def _match_elu(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """Elu, also with the multiplications by 1 that torch writes around it."""
    for outer in scaled(graph, node.output[0], 1.0):
        elu = graph.producer(outer.values[0], "Elu")
        if elu is None:
            continue
        alpha = simplest(attributes(elu).get("alpha", 1.0))
        if alpha < 0:
            raise ExportError(f"node {elu.name!r} (Elu): expected an alpha of at least 0, got {alpha}")
        *_, inner = scaled(graph, elu.input[0], 1.0)
        return Match(inner.values, nodes=1 + outer.nodes + inner.nodes, attrs={"alpha": alpha})
    return None


def _match_sigmoid(graph: ForwardGraph, node: NodeProto) -> Match | None:
    return Match((node.input[0],)) if node.op_type == "Sigmoid" else None


def _match_tanh(graph: ForwardGraph, node: NodeProto) -> Match | None:
    return Match((node.input[0],)) if node.op_type == "Tanh" else None


def _match_silu(graph: ForwardGraph, node: NodeProto) -> Match | None:
    return _match_gated(graph, node, "Sigmoid")


def _match_hard_swish(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """HardSwish, x times its HardSigmoid with alpha 1/6 and beta 1/2, or x * relu6(x + 3) / 6."""
    if node.op_type == "HardSwish":
        return Match((node.input[0],))
    for product in products(graph, node.output[0]):
        if len(product.values) == 2 and near(product.factor, 1 / 6):
            for x, gate in (product.values, product.values[::-1]):
                for seen, nodes in shifted_relu6(graph, gate):
                    if seen == x:
                        return Match((x,), nodes=product.nodes + nodes)
    return _match_gated(graph, node, "HardSigmoid")


def _match_gated(graph: ForwardGraph, node: NodeProto, kind: str) -> Match | None:
    """x * kind(x), either way around."""
    for x, other in either_order(node, "Mul"):
        gate = graph.producer(other, kind)
        if gate is not None and graph.resolve(gate.input[0]) == graph.resolve(x) and _is_plain(gate):
            return Match((x,), nodes=2)
    return None


def _is_plain(gate: NodeProto) -> bool:
    given = {"alpha": 0.2, "beta": 0.5} | attributes(gate)
    return gate.op_type != "HardSigmoid" or (near(given["alpha"], 1 / 6) and near(given["beta"], 0.5))


def _from_output(tape: Tape, op: Op) -> None:
    (y,) = op.outputs
    tape.to_input(op, f"{op.kind}Grad", (tape.gradient(y), y), op.attrs)


def _from_input(tape: Tape, op: Op) -> None:
    tape.to_input(op, f"{op.kind}Grad", (tape.gradient(op.outputs[0]), op.inputs[0]), op.attrs)


def _expand_elu(builder: Builder, op: Op) -> None:
    builder.add("Elu", op.inputs[0], out=op.outputs[0], alpha=number(op, "alpha"))


def _expand_elu_grad(builder: Builder, op: Op) -> None:
    gy, y = op.inputs
    below = builder.add("Mul", gy, builder.add("Add", y, builder.floats(number(op, "alpha"))))
    builder.add("Where", builder.add("Greater", y, builder.floats(0.0)), gy, below, out=op.outputs[0])


def _expand_sigmoid(builder: Builder, op: Op) -> None:
    builder.add("Sigmoid", op.inputs[0], out=op.outputs[0])


def _expand_sigmoid_grad(builder: Builder, op: Op) -> None:
    gy, y = op.inputs
    slope = builder.add("Mul", y, builder.add("Sub", builder.floats(1.0), y))
    builder.add("Mul", gy, slope, out=op.outputs[0])


def _expand_tanh(builder: Builder, op: Op) -> None:
    builder.add("Tanh", op.inputs[0], out=op.outputs[0])


def _expand_tanh_grad(builder: Builder, op: Op) -> None:
    gy, y = op.inputs
    slope = builder.add("Sub", builder.floats(1.0), builder.add("Mul", y, y))
    builder.add("Mul", gy, slope, out=op.outputs[0])


def _expand_silu(builder: Builder, op: Op) -> None:
    x = op.inputs[0]
    builder.add("Mul", x, builder.add("Sigmoid", x), out=op.outputs[0])


def _expand_silu_grad(builder: Builder, op: Op) -> None:
    gy, x = op.inputs
    one, sigmoid = builder.floats(1.0), builder.add("Sigmoid", x)
    bend = builder.add("Mul", x, builder.add("Sub", one, sigmoid))
    slope = builder.add("Mul", sigmoid, builder.add("Add", one, bend))
    builder.add("Mul", gy, slope, out=op.outputs[0])


def _expand_hard_swish(builder: Builder, op: Op) -> None:
    builder.add("HardSwish", op.inputs[0], out=op.outputs[0])


def _expand_hard_swish_grad(builder: Builder, op: Op) -> None:
    gy, x = op.inputs
    middle = builder.add("Add", builder.add("Div", x, builder.floats(3.0)), builder.floats(0.5))
    low, high = builder.floats(-3.0), builder.floats(3.0)
    right = builder.add("Where", builder.add("GreaterOrEqual", x, high), builder.floats(1.0), middle)
    slope = builder.add("Where", builder.add("LessOrEqual", x, low), builder.floats(0.0), right)
    builder.add("Mul", gy, slope, out=op.outputs[0])


RULES = (
    Rule(
        "Elu",
        _expand_elu,
        _match_elu,
        _from_output,
        signature="x -> y",
        attributes="alpha",
        meaning="y = x where x > 0, else alpha*(exp(x) - 1)",
    ),
    Rule(
        "EluGrad",
        _expand_elu_grad,
        signature="gy, y -> gx",
        attributes="alpha",
        meaning="gx = gy * (1 where y > 0, else y + alpha)",
    ),
    Rule(
        "Sigmoid",
        _expand_sigmoid,
        _match_sigmoid,
        _from_output,
        signature="x -> y",
        meaning="y = 1 / (1 + exp(-x))",
    ),
    Rule("SigmoidGrad", _expand_sigmoid_grad, signature="gy, y -> gx", meaning="gx = gy * y * (1 - y)"),
    Rule("Tanh", _expand_tanh, _match_tanh, _from_output, signature="x -> y", meaning="y = tanh(x)"),
    Rule("TanhGrad", _expand_tanh_grad, signature="gy, y -> gx", meaning="gx = gy * (1 - y*y)"),
    Rule(
        "Silu",
        _expand_silu,
        _match_silu,
        _from_input,
        signature="x -> y",
        meaning="y = x * s, s = 1 / (1 + exp(-x)); also called swish",
    ),
    Rule(
        "SiluGrad",
        _expand_silu_grad,
        signature="gy, x -> gx",
        meaning="gx = gy * s * (1 + x*(1 - s)), s as in Silu",
    ),
    Rule(
        "HardSwish",
        _expand_hard_swish,
        _match_hard_swish,
        _from_input,
        signature="x -> y",
        meaning="y = x * (x + 3, clipped to 0..6) / 6",
    ),
    Rule(
        "HardSwishGrad",
        _expand_hard_swish_grad,
        signature="gy, x -> gx",
        meaning="gx = gy * (0 up to x = -3, 1 from x = 3 on, x/3 + 1/2 between)",
    ),
)
