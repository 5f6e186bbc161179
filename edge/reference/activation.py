"""Piecewise linear activations, each with a mask of one bit an element, and the gradient that such masks make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from .bits import pack, unpack
from .kernel import Array, Arrays, Attrs, Kernel, Shape, Shapes, Workspace, aligned, number, present

CHUNK = 8192  # mask elements that are unpacked at once, a multiple of 8
_NOTHING = np.empty(0, np.bool_)


@dataclass(frozen=True)
class Masked:
    """An activation that keeps one bit an element for its gradient, as a kernel.

    Attributes:
        bounds: (lower, upper) from the attributes: the bit says whether lower < x < upper; None: no bound.
        value: `value(x, y, attrs, scratch)` writes y, which may be x; scratch: `CHUNK` booleans or fewer.
        two_sided: whether there may be an upper bound.
        scratched: whether `value` uses the scratch.
    """

    bounds: Callable[[Attrs], tuple[float | None, float | None]]
    value: Callable[[Array, Array, Attrs, Array], None]
    two_sided: bool = False
    scratched: bool = False

    def kernel(self) -> Kernel:
        """Return the kernel."""
        return Kernel(self._compute, self._workspace_bytes, in_place={0: 0})

    def _buffers(self, masked: bool) -> int:
        return 1 + self.two_sided if masked else int(self.scratched)

    def _compute(self, inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
        (x,) = present(inputs)
        y, mask = outputs
        pieces, size = Workspace(workspace), _buffer_elements(x.shape)
        buffers = [pieces.take(size, np.uint8) for _ in range(self._buffers(mask is not None))]
        if mask is not None:
            lower, upper = self.bounds(attrs)
            for sample, packed in zip(x, mask, strict=True):
                for values, octets in _chunks(sample.reshape(-1), packed):
                    bits = buffers[0][: 8 * octets.size]
                    _write_inside(values, lower, upper, bits, buffers[-1])
                    pack(bits, 1, octets)
        if y is not None:
            self.value(x, y, attrs, buffers[0].view(np.bool_) if self.scratched else _NOTHING)

    def _workspace_bytes(self, inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
        (x,) = present(inputs)
        return self._buffers(outputs[1] is not None) * aligned(_buffer_elements(x))


def _write_inside(values: Array, lower: float | None, upper: float | None, bits: Array, other: Array) -> None:
    """Write 1 where lower < value < upper; `bits` may be longer than the values, the rest becomes 0."""
    inside = bits[: values.size].view(np.bool_)
    bits[values.size :] = 0
    if lower is None:
        inside.fill(True)
    else:
        np.greater(values, lower, out=inside)
    if upper is not None:
        below = other[: values.size].view(np.bool_)
        np.less(values, upper, out=below)
        np.logical_and(inside, below, out=inside)


def _relu(x: Array, y: Array, attrs: Attrs, scratch: Array) -> None:
    np.maximum(x, 0, out=y)


def _clip(x: Array, y: Array, attrs: Attrs, scratch: Array) -> None:
    lower, upper = _clip_bounds(attrs)
    np.copyto(y, x) if lower is None else np.maximum(x, lower, out=y)
    if upper is not None:
        np.minimum(y, upper, out=y)


def _clip_bounds(attrs: Attrs) -> tuple[float | None, float | None]:
    lower, upper = (None if attrs.get(name) is None else number(attrs, name) for name in ("min", "max"))
    return lower, upper


def _leaky_relu(x: Array, y: Array, attrs: Attrs, scratch: Array) -> None:
    alpha, values = number(attrs, "alpha"), y.reshape(-1)
    np.copyto(y, x)
    for start in range(0, values.size, scratch.size):
        part = values[start : start + scratch.size]
        below = scratch[: part.size]
        np.less_equal(part, 0, out=below)
        np.multiply(part, alpha, out=part, where=below)


def _hard_sigmoid(x: Array, y: Array, attrs: Attrs, scratch: Array) -> None:
    np.multiply(x, number(attrs, "alpha"), out=y)
    np.add(y, number(attrs, "beta"), out=y)
    np.maximum(y, 0, out=y)
    np.minimum(y, 1, out=y)


def _hard_sigmoid_bounds(attrs: Attrs) -> tuple[float, float]:
    alpha, beta = number(attrs, "alpha"), number(attrs, "beta")
    return -beta / alpha, (1 - beta) / alpha


def _mask_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """gx = gy * (inside where the mask is set, else outside)."""
    gy, mask = present(inputs)
    (gx,) = present(outputs)
    inside, outside = number(attrs, "inside"), number(attrs, "outside")
    buffer = Workspace(workspace).take(_buffer_elements(gx.shape), np.uint8)
    np.copyto(gx, gy)
    for sample, packed in zip(gx, mask, strict=True):
        for values, octets in _chunks(sample.reshape(-1), packed):
            unpack(octets, 1, buffer[: 8 * octets.size])
            chosen = buffer[: values.size].view(np.bool_)
            _scale_where(values, inside, chosen)
            np.logical_not(chosen, out=chosen)
            _scale_where(values, outside, chosen)


def _scale_where(values: Array, factor: float, chosen: Array) -> None:
    """Multiply the chosen values; by 0 they become 0 whatever they were."""
    if factor == 0:
        np.copyto(values, 0, where=chosen)
    elif factor != 1:
        np.multiply(values, values.dtype.type(factor), out=values, where=chosen)


def _chunks(values: Array, packed: Array) -> Iterator[tuple[Array, Array]]:
    """Yield the values (1-D) and the bytes of their mask, CHUNK elements at a time."""
    for start in range(0, values.size, CHUNK):
        yield values[start : start + CHUNK], packed[start // 8 : (start + CHUNK) // 8]


def _buffer_elements(x: Shape) -> int:
    return min(CHUNK, -(-prod(x[1:]) // 8) * 8)


def _mask_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (gx,) = present(outputs)
    return _buffer_elements(gx)


KERNELS = {
    "Relu": Masked(lambda attrs: (0.0, None), _relu).kernel(),
    "Clip": Masked(_clip_bounds, _clip, two_sided=True).kernel(),
    "LeakyRelu": Masked(lambda attrs: (0.0, None), _leaky_relu, scratched=True).kernel(),
    "HardSigmoid": Masked(_hard_sigmoid_bounds, _hard_sigmoid, two_sided=True).kernel(),
    "MaskGrad": Kernel(_mask_grad, _mask_grad_workspace, in_place={0: 0}),
}
