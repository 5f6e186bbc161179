"""ReLU with a mask of one bit an element, and the gradient that such masks make."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from .bits import pack, unpack
from .kernel import Array, Arrays, Attrs, Kernel, Shape, Shapes, Workspace, number, present

CHUNK = 8192  # mask elements that are unpacked at once, a multiple of 8


def _relu(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (x,) = present(inputs)
    y, mask = outputs
    if mask is not None:
        buffer = Workspace(workspace).take(_buffer_elements(x.shape), np.uint8)
        for sample, packed in zip(x, mask, strict=True):
            for values, octets in _chunks(sample.reshape(-1), packed):
                positive = buffer[: 8 * octets.size]
                positive[values.size :] = 0
                np.greater(values, 0, out=positive[: values.size].view(np.bool_))
                pack(positive, 1, octets)
    if y is not None:
        np.maximum(x, 0, out=y)


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


def _relu_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (x,) = present(inputs)
    return 0 if outputs[1] is None else _buffer_elements(x)


def _mask_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (gx,) = present(outputs)
    return _buffer_elements(gx)


KERNELS = {
    "Relu": Kernel(_relu, _relu_workspace, in_place={0: 0}),
    "MaskGrad": Kernel(_mask_grad, _mask_grad_workspace, in_place={0: 0}),
}
