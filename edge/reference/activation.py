"""ReLU with a mask of one bit an element, and its gradient."""

from __future__ import annotations

from math import prod

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shapes, Workspace, present

CHUNK = 2048  # elements packed at once, a multiple of 8; NumPy's bit functions return a new array this long


def _relu(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (x,) = present(inputs)
    y, mask = outputs
    if mask is not None:
        positive = Workspace(workspace).take(min(CHUNK, x[0].size), np.bool_)
        for sample, packed in zip(x, mask, strict=True):
            _pack_positive(sample.reshape(-1), packed, positive)
    if y is not None:
        np.maximum(x, 0, out=y)


def _pack_positive(values: Array, packed: Array, positive: Array) -> None:
    for start in range(0, values.size, CHUNK):
        part = values[start : start + CHUNK]
        bits = positive[: part.size]
        np.greater(part, 0, out=bits)
        packed[start // 8 : (start + part.size + 7) // 8] = np.packbits(bits, bitorder="little")


def _relu_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    gy, mask = present(inputs)
    (gx,) = present(outputs)
    np.copyto(gx, gy)
    for sample, packed in zip(gx, mask, strict=True):
        flat = sample.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            bits = np.unpackbits(
                packed[start // 8 : (start + CHUNK) // 8], count=part.size, bitorder="little"
            )
            np.copyto(part, 0, where=np.equal(bits, 0, out=bits.view(np.bool_)))


def _relu_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (x,) = present(inputs)
    return 0 if outputs[1] is None else min(CHUNK, prod(x[1:]))


KERNELS = {
    "Relu": Kernel(_relu, _relu_workspace, in_place={0: 0}),
    "ReluGrad": Kernel(_relu_grad, in_place={0: 0}),
}
