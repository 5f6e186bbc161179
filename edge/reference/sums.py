"""Gradients of per-channel scales and shifts: weighted sums over samples of what each sample sums up itself."""

from __future__ import annotations

import numpy as np

from .kernel import (
    Array,
    Arrays,
    Attrs,
    Kernel,
    Shapes,
    Workspace,
    aligned,
    integer,
    optional,
    present,
)


def sample_factors(sample_weight: Array, bw: Array | None, sample: int, factors: Array) -> None:
    """Write sample_weight[n] * bw[n] (bw absent: 1) into `factors` (O,)."""
    factors.fill(1) if bw is None else np.copyto(factors, bw[sample])
    np.multiply(factors, sample_weight[sample], out=factors)


def _add_weighted(total: Array, weight: Array, gammas: tuple[Array | None, ...], target: Array) -> None:
    """Add weight * gammas * total to `target`; all but the weight (C,)."""
    for gamma in gammas:
        if gamma is not None:
            np.multiply(total, gamma, out=total)
    np.multiply(total, weight, out=total)
    np.add(target, total, out=target)


def _of(values: Array | None, sample: int) -> Array | None:
    return None if values is None else values[sample]


def _bias_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """gb += sum_n sample_weight[n]*bw[n]*(gy[n] summed over all axes but the kept ones)."""
    gy, sample_weight = present(inputs[:2])
    bw = optional(inputs, 2)
    (gb,) = present(outputs)
    total = Workspace(workspace).take(gb.size, gb.dtype)
    kept_first = integer(attrs, "axis") == 1
    for sample in range(gy.shape[0]):
        if kept_first:
            np.sum(gy[sample].reshape(gb.size, -1), axis=1, out=total)
        else:
            np.sum(gy[sample].reshape(-1, gb.size), axis=0, out=total)
        _add_weighted(total, sample_weight[sample], (_of(bw, sample),), gb.reshape(-1))


def _bias_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (gb,) = present(outputs)
    return aligned(itemsize * int(np.prod(gb)))


def _scale_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """gs += sum_n sample_weight[n]*fw[n]*bw[n]*(gy[n]*x[n] summed over all axes but the kept ones)."""
    gy, x, sample_weight = present(inputs[:3])
    fw, bw = optional(inputs, 3), optional(inputs, 4)
    (gs,) = present(outputs)
    pieces = Workspace(workspace)
    total, product = pieces.take(gs.size, gs.dtype), pieces.take(gs.size, gs.dtype)
    kept_first = integer(attrs, "axis") == 1
    for sample in range(gy.shape[0]):
        if kept_first:
            left, right = gy[sample].reshape(gs.size, -1), x[sample].reshape(gs.size, -1)
            np.matmul(left[:, None, :], right[:, :, None], out=total[:, None, None])
        else:
            total.fill(0)
            rows = zip(gy[sample].reshape(-1, gs.size), x[sample].reshape(-1, gs.size), strict=True)
            for one, other in rows:
                np.multiply(one, other, out=product)
                np.add(total, product, out=total)
        _add_weighted(total, sample_weight[sample], (_of(fw, sample), _of(bw, sample)), gs.reshape(-1))


def _scale_grad_sparse(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """The same, axis 1, from the channels kept of x, which are multiplied by fw already."""
    kept, index, gy, sample_weight = present(inputs[:4])
    bw = optional(inputs, 4)
    (gs,) = present(outputs)
    flat = (gy.shape[0], gy.shape[1], -1)
    factors = Workspace(workspace).take(gs.size, gs.dtype)
    for sample in range(gy.shape[0]):
        sample_factors(sample_weight, bw, sample, factors)
        for slot, channel in enumerate(index[sample]):
            if channel >= 0:
                values = kept.reshape(kept.shape[0], kept.shape[1], -1)[sample, slot]
                gs[channel] += factors[channel] * np.dot(gy.reshape(flat)[sample, channel], values)


def _scale_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    return 2 * _bias_workspace(inputs, outputs, attrs, itemsize)


KERNELS = {
    "BiasGrad": Kernel(_bias_grad, _bias_workspace, accumulates=True),
    "ScaleGrad": Kernel(_scale_grad, _scale_workspace, accumulates=True),
    "ScaleGradSparse": Kernel(_scale_grad_sparse, _bias_workspace, accumulates=True),
}
