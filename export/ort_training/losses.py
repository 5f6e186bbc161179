"""Losses in operators that ONNX Runtime can differentiate, summed over the samples instead of averaged.

The mean over the support set comes in through `step_scale`, so that it does not depend on the micro-batch.
"""

from __future__ import annotations

from math import log, pi

from onnx import TensorProto

from ...edge.program import Op
from ..onnx_builder import Builder
from ..ops.loss import MASKED_LOGIT
from ..ops.rule import number


def softmax_cross_entropy(builder: Builder, op: Op) -> None:
    """Label smoothing spreads its share evenly over the classes in use, as torch does over all."""
    logits, labels, _, class_mask = op.inputs
    classes = builder.shape(logits)[0]
    used = builder.add("Greater", class_mask, builder.floats(0.0))
    masked = builder.add("Where", used, logits, builder.floats(MASKED_LOGIT))
    likelihood = builder.add("LogSoftmax", masked, axis=1)
    target = _one_hot(builder, labels, classes)
    smoothing = number(op, "label_smoothing") if "label_smoothing" in op.attrs else 0.0
    if smoothing:
        in_use = builder.add("Cast", used, to=TensorProto.FLOAT)
        even = builder.add("Div", in_use, builder.total(in_use, (0,)))
        spread = builder.add("Mul", even, builder.floats(smoothing))
        target = builder.add("Add", builder.add("Mul", target, builder.floats(1 - smoothing)), spread)
    _negative_total(builder, builder.add("Mul", likelihood, target), op)


def mean_squared_error(builder: Builder, op: Op) -> None:
    """The mean over a sample's elements, summed over the samples."""
    outputs, targets = op.inputs[:2]
    error = builder.add("Sub", outputs, targets)
    square = builder.add("Mul", error, error)
    axes = range(1, len(builder.shape(outputs)) + 1)
    builder.total(builder.mean(square, list(axes), keep=False), (0,), out=op.outputs[0])


def categorical_policy_gradient(builder: Builder, op: Op) -> None:
    """Minus advantage times log-probability of the action, mean over time, summed over the samples."""
    logits, actions, advantages = op.inputs[:3]
    likelihood = builder.add("LogSoftmax", logits, axis=-1)
    chosen = builder.add("Mul", likelihood, _one_hot(builder, actions, builder.shape(logits)[-1]))
    _weighted(builder, builder.total(chosen, (-1,)), advantages, op)


def gaussian_policy_gradient(builder: Builder, op: Op) -> None:
    """As the categorical one, for independent Gaussians of learned log standard deviations."""
    mean, log_std, actions, advantages = op.inputs[:4]
    inverse = builder.add("Exp", builder.add("Neg", log_std))
    score = builder.add("Mul", builder.add("Sub", actions, mean), inverse)
    half = builder.add("Mul", builder.add("Mul", score, score), builder.floats(0.5))
    constant = builder.add("Add", log_std, builder.floats(0.5 * log(2 * pi)))
    likelihood = builder.add("Neg", builder.total(builder.add("Add", half, constant), (-1,)))
    _weighted(builder, likelihood, advantages, op)


def _weighted(builder: Builder, likelihood: str, advantages: str, op: Op) -> None:
    product = builder.add("Mul", likelihood, advantages)
    steps = builder.shape(advantages)
    _negative_total(builder, builder.mean(product, [1], keep=False) if steps else product, op)


def _negative_total(builder: Builder, value: str, op: Op) -> None:
    total = builder.add("ReduceSum", value, keepdims=0)
    builder.add("Neg", total, out=op.outputs[0])


def _one_hot(builder: Builder, indices: str, classes: int) -> str:
    last = builder.add("Unsqueeze", indices, builder.ints([-1]))
    equal = builder.add("Equal", last, builder.ints(list(range(classes))))
    return builder.add("Cast", equal, to=TensorProto.FLOAT)


LOSSES = {
    "SoftmaxCrossEntropy": softmax_cross_entropy,
    "MeanSquaredError": mean_squared_error,
    "CategoricalPolicyGradient": categorical_policy_gradient,
    "GaussianPolicyGradient": gaussian_policy_gradient,
}
