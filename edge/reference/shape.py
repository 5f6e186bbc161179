"""Operations that move values without computing: reshape, transpose, join, cut, pad; and zero.

Where an operation cuts out or fills in single elements of an axis, its smaller side may lack that axis: the
shapes of the tensors say so (`x[:, 0]` is a Slice whose result has one axis less).
"""

from __future__ import annotations

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, integer, integers, number, present


def _same_bytes(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """Do nothing: the output is a view of the input's memory."""


def _transpose(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (x,) = present(inputs)
    (y,) = present(outputs)
    perm = integers(attrs, "perm", x.ndim)
    if perm[0] != 0:
        raise ValueError(f"attribute 'perm' must leave the batch axis first, got {perm}")
    np.copyto(y, x.transpose(perm))


def _concat(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (y,) = present(outputs)
    axis, start = integer(attrs, "axis"), 0
    for part in present(inputs):
        stop = start + part.shape[axis]
        np.copyto(y[(slice(None),) * axis + (slice(start, stop),)], part)
        start = stop


def _slice(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (x,) = present(inputs)
    (y,) = present(outputs)
    starts, ends = integers(attrs, "starts", x.ndim - 1), integers(attrs, "ends", x.ndim - 1)
    ranges = (slice(start, end) for start, end in zip(starts, ends, strict=True))
    index = (slice(None), *ranges)
    part = x[index]
    np.copyto(y.reshape(part.shape), part)


def _pad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (x,) = present(inputs)
    (y,) = present(outputs)
    before, after = integers(attrs, "before", y.ndim - 1), integers(attrs, "after", y.ndim - 1)
    y.fill(number(attrs, "value"))
    inner = (slice(b, size - a) for b, a, size in zip(before, after, y.shape[1:], strict=True))
    index = (slice(None), *inner)
    target = y[index]
    np.copyto(target, x.reshape(target.shape))


def _zero(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (y,) = present(outputs)
    y.fill(0)


KERNELS = {
    "Reshape": Kernel(_same_bytes, alias=True),
    "Transpose": Kernel(_transpose),
    "Concat": Kernel(_concat),
    "Slice": Kernel(_slice),
    "Pad": Kernel(_pad),
    "Zero": Kernel(_zero),
}
