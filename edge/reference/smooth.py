"""Smooth activations and their gradients, elementwise; what overflows or cancels is written so that it does not.

Elu: Clevert et al. 2016. Gelu: Hendrycks and Gimpel 2016. Silu: Elfwing et al. 2018. HardSwish: Howard et al. 2019.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from .erf import complementary_error
from .kernel import Array, Attrs, number
from .pointwise import Pointwise

Sources = list[Array]
Scratch = list[Array]
TANH_SCALE, TANH_CUBE = sqrt(2 / pi), 0.044715  # Gelu's tanh form: 0.8 (x + 0.04 x^3)
TANH_LARGEST = 10.0  # beyond, the tanh form is x or 0 to the last bit


def _sigmoid_of(x: Array, target: Array, scratch: Array) -> None:
    """1 / (1 + exp(-x)) as exp(min(x, 0)) / (1 + exp(-|x|)); `target` may be x."""
    np.abs(x, out=scratch)
    np.negative(scratch, out=scratch)
    np.exp(scratch, out=scratch)
    np.add(scratch, 1, out=scratch)
    np.minimum(x, 0, out=target)
    np.exp(target, out=target)
    np.divide(target, scratch, out=target)


def _sigmoid(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    _sigmoid_of(sources[0], target, scratch[0])


def _sigmoid_grad(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    gy, y = sources
    (slope,) = scratch
    np.subtract(1, y, out=slope)
    np.multiply(slope, y, out=slope)
    np.multiply(gy, slope, out=target)


def _tanh(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    np.tanh(sources[0], out=target)


def _tanh_grad(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    gy, y = sources
    (slope,) = scratch
    np.multiply(y, y, out=slope)
    np.subtract(1, slope, out=slope)
    np.multiply(gy, slope, out=target)


def _elu(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    (x,) = sources
    (low,) = scratch
    np.minimum(x, 0, out=low)
    np.expm1(low, out=low)
    np.multiply(low, number(attrs, "alpha"), out=low)
    np.maximum(x, 0, out=target)
    np.add(target, low, out=target)


def _elu_grad(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    """1 above zero, else y + alpha."""
    gy, y = sources
    slope, above = scratch[0], _bools(scratch[1])
    np.greater(y, 0, out=above)
    np.add(y, number(attrs, "alpha"), out=slope)
    np.copyto(slope, 1, where=above)
    np.multiply(gy, slope, out=target)


def _silu(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    (x,) = sources
    sigmoid, other = scratch
    _sigmoid_of(x, sigmoid, other)
    np.multiply(x, sigmoid, out=target)


def _silu_grad(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    """sigmoid(x) * (1 + x * (1 - sigmoid(x)))."""
    gy, x = sources
    sigmoid, slope = scratch
    _sigmoid_of(x, sigmoid, slope)
    np.subtract(1, sigmoid, out=slope)
    np.multiply(slope, x, out=slope)
    np.add(slope, 1, out=slope)
    np.multiply(slope, sigmoid, out=slope)
    np.multiply(gy, slope, out=target)


def _hard_swish(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    (x,) = sources
    (gate,) = scratch
    np.add(x, 3, out=gate)
    np.clip(gate, 0, 6, out=gate)
    np.divide(gate, 6, out=gate)
    np.multiply(x, gate, out=target)


def _hard_swish_grad(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    """0 up to -3, 1 from 3 on, x/3 + 1/2 between."""
    gy, x = sources
    slope, outside = scratch[0], _bools(scratch[1])
    np.divide(x, 3, out=slope)
    np.add(slope, 0.5, out=slope)
    np.less_equal(x, -3, out=outside)
    np.copyto(slope, 0, where=outside)
    np.greater_equal(x, 3, out=outside)
    np.copyto(slope, 1, where=outside)
    np.multiply(gy, slope, out=target)


def _gelu(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    _gelu_tanh(sources[0], target, scratch) if _by_tanh(attrs) else _gelu_erf(sources[0], target, scratch)


def _gelu_grad(sources: Sources, target: Array, scratch: Scratch, attrs: Attrs) -> None:
    gy, x = sources
    (_gelu_tanh_slope if _by_tanh(attrs) else _gelu_erf_slope)(x, scratch)
    np.multiply(gy, scratch[0], out=target)


def _gelu_erf(x: Array, target: Array, scratch: Scratch) -> None:
    """x * Phi(x) = max(x, 0) - |x|/2 * erfc(|x| / sqrt 2): no digits cancel on the left."""
    tail, z, other = scratch
    _scaled_magnitude(x, z)
    complementary_error(z, tail, other)
    np.abs(x, out=z)
    np.multiply(tail, z, out=tail)
    np.multiply(tail, 0.5, out=tail)
    np.maximum(x, 0, out=target)
    np.subtract(target, tail, out=target)


def _gelu_erf_slope(x: Array, scratch: Scratch) -> None:
    """Write Phi(x) + x * phi(x) into the first buffer."""
    slope, z, other = scratch
    _scaled_magnitude(x, z)
    complementary_error(z, slope, other)  # leaves exp(-x^2 / 2) in z
    np.subtract(1, slope, out=slope)
    np.copysign(slope, x, out=slope)
    np.add(slope, 1, out=slope)
    np.multiply(slope, 0.5, out=slope)
    np.multiply(z, x, out=z)
    np.multiply(z, 1 / sqrt(2 * pi), out=z)
    np.add(slope, z, out=slope)


def _scaled_magnitude(x: Array, target: Array) -> None:
    np.abs(x, out=target)
    np.multiply(target, sqrt(0.5), out=target)


def _gelu_tanh(x: Array, target: Array, scratch: Scratch) -> None:
    """x * sigmoid(2u), which is x * (1 + tanh u) / 2."""
    sigmoid, _, other = scratch
    _twice_inner(x, sigmoid, other)
    _sigmoid_of(sigmoid, sigmoid, other)
    np.multiply(x, sigmoid, out=target)


def _gelu_tanh_slope(x: Array, scratch: Scratch) -> None:
    """Write s + x * s * (1 - s) * (2u)' into the first buffer, s = sigmoid(2u)."""
    sigmoid, inner, other = scratch
    _twice_inner(x, sigmoid, other)
    _sigmoid_of(sigmoid, sigmoid, other)
    np.clip(x, -TANH_LARGEST, TANH_LARGEST, out=inner)
    np.multiply(inner, inner, out=other)
    np.multiply(other, 6 * TANH_SCALE * TANH_CUBE, out=other)
    np.add(other, 2 * TANH_SCALE, out=other)
    np.multiply(inner, other, out=inner)
    np.subtract(1, sigmoid, out=other)
    np.multiply(inner, other, out=inner)
    np.add(inner, 1, out=inner)
    np.multiply(sigmoid, inner, out=sigmoid)


def _twice_inner(x: Array, target: Array, scratch: Array) -> None:
    """2u = 2 sqrt(2/pi) (x + 0.044715 x^3), x clipped to where the result still changes."""
    np.clip(x, -TANH_LARGEST, TANH_LARGEST, out=target)
    np.multiply(target, target, out=scratch)
    np.multiply(scratch, 2 * TANH_SCALE * TANH_CUBE, out=scratch)
    np.add(scratch, 2 * TANH_SCALE, out=scratch)
    np.multiply(target, scratch, out=target)


def _by_tanh(attrs: Attrs) -> bool:
    """Raise ValueError for an approximation there is not."""
    approximate = attrs.get("approximate")
    if approximate not in ("none", "tanh"):
        raise ValueError(f"Gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return approximate == "tanh"


def _bools(buffer: Array) -> Array:
    """Let a scratch buffer hold one boolean an element."""
    return buffer.view(np.bool_)[: buffer.size]


KERNELS = {
    "Elu": Pointwise(_elu, 1).kernel(),
    "EluGrad": Pointwise(_elu_grad, 2).kernel(),
    "Sigmoid": Pointwise(_sigmoid, 1).kernel(),
    "SigmoidGrad": Pointwise(_sigmoid_grad, 1).kernel(),
    "Tanh": Pointwise(_tanh).kernel(),
    "TanhGrad": Pointwise(_tanh_grad, 1).kernel(),
    "Silu": Pointwise(_silu, 2).kernel(),
    "SiluGrad": Pointwise(_silu_grad, 2).kernel(),
    "HardSwish": Pointwise(_hard_swish, 1).kernel(),
    "HardSwishGrad": Pointwise(_hard_swish_grad, 2).kernel(),
    "Gelu": Pointwise(_gelu, 3).kernel(),
    "GeluGrad": Pointwise(_gelu_grad, 3).kernel(),
}
