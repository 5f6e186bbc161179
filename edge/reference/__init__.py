"""The NumPy meaning of every operation of the op table, one file per family.

`KERNELS` maps an operation to its kernel. Besides the op table of `docs/program.md` it has what only lowering
writes: `Zero`, `SelectChannels` and the weight gradients that read its result (`...Sparse`), `Quantise` and
`Dequantise`.
`interpret` runs a whole program without a plan.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import (
    activation,
    affine,
    arithmetic,
    attention,
    average_pool,
    conv,
    conv_grad,
    fc,
    layer_norm,
    loss,
    mahalanobis,
    matmul,
    mean,
    norm,
    policy,
    pool,
    prelu,
    quantise,
    resize,
    shape,
    smooth,
    softmax,
    sums,
    update,
)
from .kernel import Kernel

KERNELS: Mapping[str, Kernel] = {
    name: kernel
    for family in (
        *(conv, conv_grad, fc, norm, layer_norm, affine, sums, activation, loss, attention, update),
        *(smooth, prelu, softmax, policy, mahalanobis),
        *(arithmetic, mean, pool, average_pool, shape, resize, matmul, quantise),
    )
    for name, kernel in family.KERNELS.items()
}

__all__ = ["KERNELS", "Kernel"]
