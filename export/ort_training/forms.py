"""Operations in the form that ONNX Runtime training 1.19.2 differentiates.

It has no gradient for HardSigmoid, HardSwish, Elu, PRelu, GroupNormalization and InstanceNormalization, and its
AveragePoolGrad leaves zeros on the CPU without a word. LayerNormalization
is differentiated only where all three of its outputs are named.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from ...edge.program import Op
from ...edge.reference.average_pool import axis_entries
from ..onnx_builder import Builder
from ..ops.matrices import apply_matrices
from ..ops.rule import integer, number

SHARED = 8
"""ONNX Runtime makes one of equal constants of up to this many elements, also of those that must stay apart."""


def group_norm(builder: Builder, op: Op) -> None:
    """Reshape, LayerNormalization over each group (a small group's own parts), Reshape, Mul, Add."""
    x, scale, bias = op.inputs
    shape, groups = builder.shape(x), integer(op, "groups")
    grouped = builder.reshape(x, (0, groups, -1))
    size, eps = prod(shape) // groups, number(op, "eps")
    small = size <= SHARED
    normal = (
        _normal_by_parts(builder, grouped, eps) if small else _normal_by_layer(builder, grouped, size, eps)
    )
    restored = builder.reshape(normal, (0, *shape))
    scaled = builder.add("Mul", restored, builder.over_space(scale, len(shape) + 1))
    builder.add("Add", scaled, builder.over_space(bias, len(shape) + 1), out=op.outputs[0])


def _normal_by_layer(builder: Builder, x: str, size: int, eps: float) -> str:
    ones, zeros = _own(builder, np.ones(size, np.float32)), _own(builder, np.zeros(size, np.float32))
    return _layer_normal(builder, (x, ones, zeros), builder.fresh("normal"), 1, eps)


def _normal_by_parts(builder: Builder, x: str, eps: float) -> str:
    centred = builder.add("Sub", x, builder.mean(x, [2]))
    variance = builder.mean(builder.add("Mul", centred, centred), [2])
    return builder.add("Div", centred, builder.add("Sqrt", builder.add("Add", variance, builder.floats(eps))))


def _own(builder: Builder, value: NDArray[np.float32]) -> str:
    """A constant that no other operation shares: LayerNormalization's gradient names one for it regardless."""
    name = f"own::{len(builder.constants)}"
    builder.constants[name] = numpy_helper.from_array(value, name)
    return name


def layer_norm(builder: Builder, op: Op) -> None:
    """LayerNormalization over the trailing axes."""
    _layer_normal(builder, op.inputs, op.outputs[0], integer(op, "dims"), number(op, "eps"))


def _layer_normal(builder: Builder, inputs: tuple[str, ...], out: str, dims: int, eps: float) -> str:
    outputs = (out, builder.fresh("mean"), builder.fresh("inv_std"))
    return builder.add_many("LayerNormalization", inputs, outputs, {"axis": -dims, "epsilon": eps})[0]


def hard_sigmoid(builder: Builder, op: Op) -> None:
    """clip(alpha x + beta, 0, 1)."""
    _unit_ramp(builder, op.inputs[0], number(op, "alpha"), number(op, "beta"), op.outputs[0])


def hard_swish(builder: Builder, op: Op) -> None:
    """X clip(x/6 + 1/2, 0, 1)."""
    x = op.inputs[0]
    builder.add("Mul", x, _unit_ramp(builder, x, 1 / 6, 0.5), out=op.outputs[0])


def _unit_ramp(builder: Builder, x: str, slope: float, offset: float, out: str = "") -> str:
    line = builder.add("Add", builder.add("Mul", x, builder.floats(slope)), builder.floats(offset))
    return builder.add("Clip", line, builder.floats(0.0), builder.floats(1.0), out=out)


def elu(builder: Builder, op: Op) -> None:
    """max(x, 0) + alpha (exp(min(x, 0)) - 1)."""
    x = op.inputs[0]
    power = builder.add("Exp", builder.add("Neg", _below_zero(builder, x)))
    under = builder.add("Sub", power, builder.floats(1.0))
    scaled = builder.add("Mul", under, builder.floats(number(op, "alpha")))
    builder.add("Add", builder.add("Relu", x), scaled, out=op.outputs[0])


def p_relu(builder: Builder, op: Op) -> None:
    """max(x, 0) - slope max(-x, 0)."""
    x, slope = op.inputs
    aligned = builder.over_space(slope, len(builder.shape(x)) + 1)
    under = builder.add("Mul", aligned, _below_zero(builder, x))
    builder.add("Sub", builder.add("Relu", x), under, out=op.outputs[0])


def _below_zero(builder: Builder, x: str) -> str:
    return builder.add("Relu", builder.add("Neg", x))


def average_pool(builder: Builder, op: Op) -> None:
    """Products with constant matrices, one for each axis."""
    apply_matrices(builder, op, axis_entries, transposed=False)


FORMS = {
    "GroupNorm": group_norm,
    "LayerNorm": layer_norm,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Elu": elu,
    "PRelu": p_relu,
    "AveragePool": average_pool,
}
