"""Products of matrices that are both activations."""

from __future__ import annotations

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, integer, present


def _matmul(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """y = a b over the last two axes, either of them transposed first; the leading axes are equal."""
    a, b = present(inputs)
    (y,) = present(outputs)
    left = a.swapaxes(-1, -2) if integer(attrs, "transA") else a
    right = b.swapaxes(-1, -2) if integer(attrs, "transB") else b
    np.matmul(left, right, out=y)


KERNELS = {"MatMul": Kernel(_matmul)}
