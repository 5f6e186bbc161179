"""Losses of predictions against given answers, with the gradient of each sample's own loss.

`loss` is the sum of the samples' losses times their weights; `gradient` is unweighted (docs/program.md).
"""

from __future__ import annotations

from math import prod

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shapes, Workspace, aligned, number, present

CHUNK = 2048  # elements of a sample's difference held at once


def _softmax_cross_entropy(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """Cross-entropy over the classes in use; label_smoothing as in torch (Szegedy et al. 2016)."""
    logits, labels, sample_weight, class_mask = present(inputs)
    loss, gradient = outputs
    pieces = Workspace(workspace)
    row = pieces.take(logits.shape[1], logits.dtype)
    used = pieces.take(logits.shape[1], np.bool_)
    np.not_equal(class_mask, 0, out=used)
    smoothing = number(attrs, "label_smoothing") if "label_smoothing" in attrs else 0.0
    each = smoothing / max(1, int(np.count_nonzero(used)))
    total = logits.dtype.type(0)
    for sample, label in enumerate(labels):
        row.fill(-np.inf)
        np.copyto(row, logits[sample], where=used)
        np.subtract(row, row.max(), out=row)
        target = (1 - smoothing) * row[label]
        if smoothing:
            target += each * np.sum(row, where=used)
        np.exp(row, out=row)
        norm = row.sum()
        total += sample_weight[sample] * (np.log(norm) - target)
        if gradient is not None:
            np.divide(row, norm, out=row)
            if smoothing:
                np.subtract(row, each, out=row, where=used)
            row[label] -= 1 - smoothing
            np.copyto(gradient[sample], row)
    if loss is not None:
        loss[...] = total


def _cross_entropy_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    logits = present(inputs)[0]
    return aligned(logits[1] * itemsize) + aligned(logits[1])


def _mean_squared_error(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """loss_n is the mean of (output - target)^2 over the sample's elements."""
    values, targets, sample_weight = present(inputs)
    loss, gradient = outputs
    count = prod(values.shape[1:])
    buffer = Workspace(workspace).take(min(CHUNK, count), values.dtype)
    total = values.dtype.type(0)
    for sample, (value, target) in enumerate(zip(values, targets, strict=True)):
        for start in range(0, count, buffer.size):
            part = slice(start, start + buffer.size)
            difference = buffer[: value.reshape(-1)[part].size]
            np.subtract(value.reshape(-1)[part], target.reshape(-1)[part], out=difference)
            total += sample_weight[sample] * np.dot(difference, difference) / count
            if gradient is not None:
                np.multiply(difference, 2 / count, out=gradient[sample].reshape(-1)[part])
    if loss is not None:
        loss[...] = total


def _squared_error_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    return itemsize * min(CHUNK, prod(present(inputs)[0][1:]))


KERNELS = {
    "SoftmaxCrossEntropy": Kernel(_softmax_cross_entropy, _cross_entropy_workspace),
    "MeanSquaredError": Kernel(_mean_squared_error, _squared_error_workspace),
}
