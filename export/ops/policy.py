"""Policy-gradient losses (Williams 1992): outputs (N, A), or (N, T, A) where a sample is an episode."""

from __future__ import annotations

from math import log, pi, prod

from ...edge.program import Op
from ..onnx_builder import Builder
from ..tape import Tape
from .loss import one_hot, weighted_total
from .rule import Rule


def _categorical_gradient(tape: Tape, op: Op) -> None:
    tape.seed(op.inputs[0], op.outputs[1])


def _gaussian_gradient(tape: Tape, op: Op) -> None:
    mean, log_std = op.inputs[:2]
    tape.seed(mean, op.outputs[1])
    tape.to_parameter(op, log_std, "GaussianLogStdGrad", op.inputs)


def _expand_categorical(builder: Builder, op: Op) -> None:
    logits, actions, advantages, sample_weight = op.inputs
    loss, gradient = op.outputs
    log_probability = builder.add("LogSoftmax", logits, axis=-1)
    chosen = one_hot(builder, actions, builder.shape(logits)[-1])
    if loss:
        likelihood = builder.total(builder.add("Mul", log_probability, chosen), (-1,))
        surprise = builder.add("Mul", builder.add("Neg", likelihood), advantages)
        weighted_total(builder, _over_time(builder, surprise, advantages), sample_weight, loss)
    if gradient:
        slope = builder.add("Sub", builder.add("Exp", log_probability), chosen)
        builder.add("Mul", slope, _share(builder, advantages), out=gradient)


def _expand_gaussian(builder: Builder, op: Op) -> None:
    log_std, _, advantages, sample_weight = op.inputs[1:]
    loss, gradient = op.outputs
    score, inverse = _score(builder, op)
    if loss:
        half = builder.add("Mul", builder.add("Mul", score, score), builder.floats(0.5))
        constant = builder.add("Add", log_std, builder.floats(0.5 * log(2 * pi)))
        surprise = builder.total(builder.add("Add", half, constant), (-1,))
        weighed = builder.add("Mul", surprise, advantages)
        weighted_total(builder, _over_time(builder, weighed, advantages), sample_weight, loss)
    if gradient:
        away = builder.add("Neg", builder.add("Mul", score, inverse))
        builder.add("Mul", away, _share(builder, advantages), out=gradient)


def _expand_log_std_grad(builder: Builder, op: Op) -> None:
    advantages, sample_weight = op.inputs[3:]
    score, _ = _score(builder, op)
    slope = builder.add("Sub", builder.floats(1.0), builder.add("Mul", score, score))
    each = builder.add("Mul", slope, _share(builder, advantages))
    rank = len(builder.shape(op.inputs[0])) + 1
    scaled = builder.add("Mul", each, _trailing(builder, sample_weight, rank - 1))
    builder.total(scaled, range(rank - 1), out=op.outputs[0])


def _score(builder: Builder, op: Op) -> tuple[str, str]:
    """(action - mean) / std, and 1 / std."""
    mean, log_std, actions = op.inputs[:3]
    inverse = builder.add("Exp", builder.add("Neg", log_std))
    return builder.add("Mul", builder.add("Sub", actions, mean), inverse), inverse


def _over_time(builder: Builder, value: str, advantages: str) -> str:
    """Mean over the axes after the batch, which are the advantages'."""
    axes = range(1, len(builder.shape(advantages)) + 1)
    return builder.mean(value, axes, keep=False) if axes else value


def _share(builder: Builder, advantages: str) -> str:
    """advantage / T, with an axis for the actions."""
    share = builder.add("Mul", advantages, builder.floats(1 / prod(builder.shape(advantages))))
    return _trailing(builder, share, 1)


def _trailing(builder: Builder, value: str, axes: int) -> str:
    return builder.add("Unsqueeze", value, builder.ints(list(range(-axes, 0))))


RULES = (
    Rule(
        "CategoricalPolicyGradient",
        _expand_categorical,
        gradient=_categorical_gradient,
        signature="logits, actions, advantages, sample_weight -> loss, gradient",
        meaning="logits (N, A) or (N, T, A), actions int64; loss_n = mean over T of -advantage * log "
        "softmax(logits)[action]; gradient = (softmax - onehot)*advantage/T, unweighted",
    ),
    Rule(
        "GaussianPolicyGradient",
        _expand_gaussian,
        gradient=_gaussian_gradient,
        signature="mean, log_std, actions, advantages, sample_weight -> loss, gradient",
        meaning="mean (N, A) or (N, T, A), log_std (A,); loss_n = mean over T of -advantage * log N(action; mean, "
        "exp(log_std)^2); gradient, of mean: (mean - action)/exp(log_std)^2 * advantage/T, unweighted",
    ),
    Rule(
        "GaussianLogStdGrad",
        _expand_log_std_grad,
        signature="mean, log_std, actions, advantages, sample_weight -> gs",
        meaning="gs = sum_n sample_weight[n] * mean over T of advantage * (1 - ((action - mean)/exp(log_std))^2)",
    ),
)
