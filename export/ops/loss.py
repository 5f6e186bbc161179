"""Softmax cross-entropy with per-sample weights and unused classes masked out."""

from __future__ import annotations

from onnx import TensorProto

from ...edge.program import Op
from ..onnx_builder import Builder
from ..tape import Tape
from .rule import Rule

MASKED_LOGIT = -1e30
"""Stands for minus infinity: its exponential is exactly 0 and no product with it is NaN."""


def _gradient(tape: Tape, op: Op) -> None:
    tape.seed(op.inputs[0], op.outputs[1])


def _expand(builder: Builder, op: Op) -> None:
    logits, labels, sample_weight, class_mask = op.inputs
    loss, gradient = op.outputs
    used = builder.add("Greater", class_mask, builder.floats(0.0))
    masked = builder.add("Where", used, logits, builder.floats(MASKED_LOGIT))
    log_probability = builder.add("LogSoftmax", masked, axis=1)
    column = builder.add("Unsqueeze", labels, builder.ints([1]))
    if loss:
        likelihood = builder.add("GatherElements", log_probability, column, axis=1)
        losses = builder.add("Neg", builder.reshape(likelihood, [-1]))
        builder.total(builder.add("Mul", losses, sample_weight), (0,), out=loss)
    if gradient:
        classes = builder.ints([list(range(builder.shape(logits)[0]))])
        one_hot = builder.add("Cast", builder.add("Equal", column, classes), to=TensorProto.FLOAT)
        builder.add("Sub", builder.add("Exp", log_probability), one_hot, out=gradient)


RULES = (
    Rule(
        "SoftmaxCrossEntropy",
        _expand,
        gradient=_gradient,
        signature="logits, labels, sample_weight, class_mask -> loss, gradient",
        meaning="loss = sum_n sample_weight[n]*loss_n; gradient (N, C) = softmax - onehot, unweighted; masked "
        "classes get 0",
    ),
)
