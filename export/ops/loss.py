"""Losses of predictions against given answers: `loss` with sample weights, `gradient` each sample's own."""

from __future__ import annotations

from math import prod

from onnx import TensorProto

from ...edge.program import Op
from ..onnx_builder import Builder
from ..tape import Tape
from .rule import Rule, number

MASKED_LOGIT = -1e30
"""Stands for minus infinity: its exponential is exactly 0 and no product with it is NaN."""


def weighted_total(builder: Builder, losses: str, sample_weight: str, out: str) -> None:
    """Sum of the samples' losses (N,) times their weights, a scalar."""
    builder.total(builder.add("Mul", losses, sample_weight), (0,), out=out)


def one_hot(builder: Builder, indices: str, classes: int) -> str:
    """Indices (N, ...) as 0 and 1 along one more axis."""
    column = builder.add("Unsqueeze", indices, builder.ints([-1]))
    equal = builder.add("Equal", column, builder.ints(list(range(classes))))
    return builder.add("Cast", equal, to=TensorProto.FLOAT)


def _gradient(tape: Tape, op: Op) -> None:
    tape.seed(op.inputs[0], op.outputs[1])


def _expand_cross_entropy(builder: Builder, op: Op) -> None:
    """-sum_c target_c * log p_c over the classes in use; its gradient is p - target."""
    logits, labels, sample_weight, class_mask = op.inputs
    loss, gradient = op.outputs
    used = builder.add("Greater", class_mask, builder.floats(0.0))
    masked = builder.add("Where", used, logits, builder.floats(MASKED_LOGIT))
    log_probability = builder.add("LogSoftmax", masked, axis=1)
    target = _smoothed(builder, op, one_hot(builder, labels, builder.shape(logits)[0]), used)
    if loss:
        each = builder.total(builder.add("Mul", log_probability, target), (1,))
        weighted_total(builder, builder.add("Neg", each), sample_weight, loss)
    if gradient:
        builder.add("Sub", builder.add("Exp", log_probability), target, out=gradient)


def _smoothed(builder: Builder, op: Op, target: str, used: str) -> str:
    """A share of the target spread evenly over the classes in use, as torch does over all."""
    smoothing = number(op, "label_smoothing") if "label_smoothing" in op.attrs else 0.0
    if not smoothing:
        return target
    in_use = builder.add("Cast", used, to=TensorProto.FLOAT)
    even = builder.add("Div", in_use, builder.total(in_use, (0,)))
    kept = builder.add("Mul", target, builder.floats(1 - smoothing))
    return builder.add("Add", kept, builder.add("Mul", even, builder.floats(smoothing)))


def _expand_squared_error(builder: Builder, op: Op) -> None:
    outputs, targets, sample_weight = op.inputs
    loss, gradient = op.outputs
    shape = builder.shape(outputs)
    difference = builder.add("Sub", outputs, targets)
    if loss:
        square = builder.add("Mul", difference, difference)
        each = builder.mean(square, range(1, len(shape) + 1), keep=False)
        weighted_total(builder, each, sample_weight, loss)
    if gradient:
        builder.add("Mul", difference, builder.floats(2 / prod(shape)), out=gradient)


RULES = (
    Rule(
        "SoftmaxCrossEntropy",
        _expand_cross_entropy,
        gradient=_gradient,
        signature="logits, labels, sample_weight, class_mask -> loss, gradient",
        attributes="label_smoothing (absent: 0)",
        meaning="loss = sum_n sample_weight[n]*loss_n, loss_n = -sum_c t_c log softmax(logits)_c, t = "
        "(1 - label_smoothing)*onehot + label_smoothing/(classes in use); gradient (N, C) = softmax - t, unweighted; "
        "masked classes get 0",
    ),
    Rule(
        "MeanSquaredError",
        _expand_squared_error,
        gradient=_gradient,
        signature="outputs, targets, sample_weight -> loss, gradient",
        meaning="loss_n = mean of (outputs - targets)^2 over the sample's elements; gradient = 2*(outputs - "
        "targets)/elements, unweighted",
    ),
)
