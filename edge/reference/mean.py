"""Means over axes, and their gradient."""

from __future__ import annotations

from math import prod

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shape, present


def _mean(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """y = x averaged over `axes`, which have length 1 in y or, without `keepdims`, are left away."""
    (x,) = present(inputs)
    (y,) = present(outputs)
    axes = mean_axes(x.shape, attrs)
    kept = y.reshape(_kept(x.shape, axes))
    np.add.reduce(x, axis=axes, keepdims=True, out=kept)
    np.divide(kept, _count(x.shape, axes), out=kept)


def _mean_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """gx = gy repeated over the axes, divided by how many elements were averaged."""
    (gy,) = present(inputs)
    (gx,) = present(outputs)
    axes = mean_axes(gx.shape, attrs)
    np.divide(gy.reshape(_kept(gx.shape, axes)), _count(gx.shape, axes), out=gx)


def mean_axes(x: Shape, attrs: Attrs) -> tuple[int, ...]:
    """Return the attribute `axes`; raises ValueError where it is not a list of axes after the batch."""
    axes = attrs.get("axes")
    if not isinstance(axes, list) or not all(0 < axis < len(x) for axis in axes):
        raise ValueError(f"attribute 'axes' must list axes from 1 to {len(x) - 1}, got {axes!r}")
    return tuple(axes)


def _kept(x: Shape, axes: Shape) -> Shape:
    return tuple(1 if axis in axes else length for axis, length in enumerate(x))


def _count(x: Shape, axes: Shape) -> int:
    return prod(x[axis] for axis in axes)


KERNELS = {"Mean": Kernel(_mean), "MeanGrad": Kernel(_mean_grad)}
