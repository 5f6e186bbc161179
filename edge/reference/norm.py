"""Group normalisation (Wu and He 2018) and its input gradient, group by group, without a temporary map."""

from __future__ import annotations

from math import prod

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shapes, Workspace, integer, number, present

CHUNK = 2048  # elements of the buffer that subtracts a multiple of x_hat


def _group_norm(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, scale, bias = present(inputs)
    y, x_hat, inv_std = outputs
    groups, eps = integer(attrs, "groups"), number(attrs, "eps")
    result = y if x_hat is None else x_hat
    if result is None:
        raise ValueError("GroupNorm: neither y nor x_hat is wanted")
    flat = (x.shape[0], x.shape[1], -1)
    for sample in range(x.shape[0]):
        _normalise(x[sample], result[sample], groups, eps, None if inv_std is None else inv_std[sample])
        if y is not None:
            target = y.reshape(flat)[sample]
            np.multiply(result.reshape(flat)[sample], scale[:, None], out=target)
            np.add(target, bias[:, None], out=target)


def _normalise(x: Array, x_hat: Array, groups: int, eps: float, inv_std: Array | None) -> None:
    """Write (x - mean) / std of every group of one sample into x_hat, which may be x itself."""
    for group, (source, target) in enumerate(
        zip(x.reshape(groups, -1), x_hat.reshape(groups, -1), strict=True)
    ):
        np.subtract(source, source.mean(), out=target)
        factor = 1 / np.sqrt(np.dot(target, target) / target.size + x.dtype.type(eps))
        np.multiply(target, factor, out=target)
        if inv_std is not None:
            inv_std[group] = factor


def _group_norm_input_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    gy, x_hat, inv_std, scale = present(inputs)
    (gx,) = present(outputs)
    groups = integer(attrs, "groups")
    flat = (gx.shape[0], gx.shape[1], -1)
    size = gx[0].size // groups
    buffer = Workspace(workspace).take(min(CHUNK, size), gx.dtype)
    for sample in range(gx.shape[0]):
        np.multiply(gy.reshape(flat)[sample], scale[:, None], out=gx.reshape(flat)[sample])
        rows = zip(
            gx[sample].reshape(groups, -1), x_hat[sample].reshape(groups, -1), inv_std[sample], strict=True
        )
        for gradient, normalised, factor in rows:
            along = np.dot(gradient, normalised) / size
            np.subtract(gradient, gradient.mean(), out=gradient)
            for start in range(0, size, buffer.size):
                part = gradient[start : start + buffer.size]
                projection = buffer[: part.size]
                np.multiply(normalised[start : start + buffer.size], along, out=projection)
                np.subtract(part, projection, out=part)
            np.multiply(gradient, factor, out=gradient)


def _input_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (gx,) = present(outputs)
    return itemsize * min(CHUNK, prod(gx[1:]) // integer(attrs, "groups"))


KERNELS = {
    "GroupNorm": Kernel(_group_norm, in_place={1: 0, 0: 0}),
    "GroupNormInputGrad": Kernel(_group_norm_input_grad, _input_grad_workspace, in_place={0: 0}),
}
