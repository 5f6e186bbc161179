"""Policy-gradient losses (Williams 1992): loss_n = mean over time of -advantage * log pi(action).

Outputs of a policy are (N, A), or (N, T, A) where a sample is a whole episode.
"""

from __future__ import annotations

from math import log, pi, prod

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shapes, Workspace, aligned, present


def _categorical(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """Actions are numbers (N,) or (N, T), drawn from softmax(logits)."""
    logits, actions, advantages, sample_weight = present(inputs)
    loss, gradient = outputs
    times = prod(logits.shape[1:-1])
    row = Workspace(workspace).take(logits.shape[-1], logits.dtype)
    total = logits.dtype.type(0)
    for sample in range(logits.shape[0]):
        steps = zip(
            _rows(logits, sample), actions[sample].reshape(-1), _each(advantages, sample), strict=True
        )
        for time, (values, action, advantage) in enumerate(steps):
            np.subtract(values, values.max(), out=row)
            own = row[action]
            np.exp(row, out=row)
            norm = row.sum()
            total += sample_weight[sample] * advantage * (np.log(norm) - own) / times
            if gradient is not None:
                np.divide(row, norm, out=row)
                row[action] -= 1
                np.multiply(row, advantage / times, out=_rows(gradient, sample)[time])
    if loss is not None:
        loss[...] = total


def _gaussian(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """Actions are drawn from a normal distribution with this mean and diagonal exp(log_std) (A,)."""
    mean, log_std, actions, advantages, sample_weight = present(inputs)
    loss, gradient = outputs
    times = prod(mean.shape[1:-1])
    score, inverse = _score_pieces(log_std, workspace)
    constant = float(log_std.sum()) + 0.5 * log(2 * pi) * log_std.size
    total = mean.dtype.type(0)
    for sample in range(mean.shape[0]):
        steps = zip(_rows(mean, sample), _rows(actions, sample), _each(advantages, sample), strict=True)
        for time, (values, action, advantage) in enumerate(steps):
            _standardise(values, action, inverse, score)
            surprise = 0.5 * np.dot(score, score) + constant
            total += sample_weight[sample] * advantage * surprise / times
            if gradient is not None:
                np.multiply(score, inverse, out=score)
                np.multiply(score, -advantage / times, out=_rows(gradient, sample)[time])
    if loss is not None:
        loss[...] = total


def _gaussian_log_std_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """gs += sum_n sample_weight[n] * mean over time of advantage * (1 - ((action - mean) / std)^2)."""
    mean, log_std, actions, advantages, sample_weight = present(inputs)
    (gs,) = present(outputs)
    times = prod(mean.shape[1:-1])
    score, inverse = _score_pieces(log_std, workspace)
    for sample in range(mean.shape[0]):
        steps = zip(_rows(mean, sample), _rows(actions, sample), _each(advantages, sample), strict=True)
        for values, action, advantage in steps:
            _standardise(values, action, inverse, score)
            np.multiply(score, score, out=score)
            np.subtract(1, score, out=score)
            np.multiply(score, sample_weight[sample] * advantage / times, out=score)
            np.add(gs, score, out=gs)


def _rows(values: Array, sample: int) -> Array:
    rows: Array = values[sample].reshape(-1, values.shape[-1])
    return rows


def _each(values: Array, sample: int) -> Array:
    each: Array = values[sample].reshape(-1)
    return each


def _score_pieces(log_std: Array, workspace: Array) -> tuple[Array, Array]:
    """Scratch (A,), and 1 / std (A,)."""
    pieces = Workspace(workspace)
    score, inverse = pieces.take(log_std.size, log_std.dtype), pieces.take(log_std.size, log_std.dtype)
    np.negative(log_std, out=inverse)
    np.exp(inverse, out=inverse)
    return score, inverse


def _standardise(mean: Array, action: Array, inverse: Array, target: Array) -> None:
    np.subtract(action, mean, out=target)
    np.multiply(target, inverse, out=target)


def _categorical_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    return itemsize * present(inputs)[0][-1]


def _gaussian_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    return 2 * aligned(itemsize * present(inputs)[0][-1])


KERNELS = {
    "CategoricalPolicyGradient": Kernel(_categorical, _categorical_workspace),
    "GaussianPolicyGradient": Kernel(_gaussian, _gaussian_workspace),
    "GaussianLogStdGrad": Kernel(_gaussian_log_std_grad, _gaussian_workspace, accumulates=True),
}
