"""Softmax cross-entropy over the classes in use, with the gradient of each sample's own loss."""

from __future__ import annotations

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shapes, Workspace, aligned, present


def _softmax_cross_entropy(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    logits, labels, sample_weight, class_mask = present(inputs)
    loss, gradient = outputs
    pieces = Workspace(workspace)
    row = pieces.take(logits.shape[1], logits.dtype)
    unused = pieces.take(logits.shape[1], np.bool_)
    np.equal(class_mask, 0, out=unused)
    total = logits.dtype.type(0)
    for sample, label in enumerate(labels):
        np.copyto(row, logits[sample])
        np.copyto(row, -np.inf, where=unused)
        np.subtract(row, row.max(), out=row)
        own = row[label]
        np.exp(row, out=row)
        norm = row.sum()
        total += sample_weight[sample] * (np.log(norm) - own)
        if gradient is not None:
            np.divide(row, norm, out=gradient[sample])
            gradient[sample, label] -= 1
    if loss is not None:
        loss[...] = total


def _loss_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    logits = present(inputs)[0]
    return aligned(logits[1] * itemsize) + aligned(logits[1])


KERNELS = {"SoftmaxCrossEntropy": Kernel(_softmax_cross_entropy, _loss_workspace)}
