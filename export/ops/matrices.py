"""Separable maps (edge/reference/separable.py) as products with constant matrices in ONNX."""

from __future__ import annotations

import numpy as np

from ...edge.program import Op
from ...edge.reference.separable import AxisEntries, filled
from ..onnx_builder import Builder


def apply_matrices(builder: Builder, op: Op, entries: AxisEntries, *, transposed: bool) -> None:
    """Emit y = A x B^T for an operation on (N, C, L) or (N, C, H, W), or its gradient, x and y changed round."""
    value, (out,) = op.inputs[0], op.outputs
    before, after = builder.shape(value)[1:], builder.shape(out)[1:]
    pairs = zip(after, before, strict=True) if transposed else zip(before, after, strict=True)
    matrices = []
    for axis, (size, count) in enumerate(pairs):
        matrix = filled(np.empty((count, size)), entries(axis, size, count, op.attrs))
        matrices.append(matrix.T if transposed else matrix)
    *above, right = matrices
    if above:
        value = builder.add("MatMul", builder.floats(above[0]), value)
    builder.add("MatMul", value, builder.floats(right.T), out=out)
