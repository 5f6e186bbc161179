"""Scale and shift by parameters (a folded norm, a LayerScale, a position embedding), and a parameter per sample."""

from __future__ import annotations

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, integer, optional, present


def _rows(values: Array, sample: int, parameter: Array, axis: int) -> Array:
    """View a sample as a matrix over which `_broadcast(parameter)` spreads."""
    size = parameter.size
    return np.reshape(values[sample], (size, -1) if axis == 1 else (-1, size))


def _broadcast(parameter: Array, axis: int) -> Array:
    return parameter.reshape(-1, 1) if axis == 1 else parameter.reshape(-1)


def _affine(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """y = scale*x + bias; axis 1: one number a channel, axis -1: of the shape of the trailing axes."""
    (x,) = present(inputs[:1])
    (y,) = present(outputs)
    axis, source = integer(attrs, "axis"), x
    for operation, parameter in ((np.multiply, optional(inputs, 1)), (np.add, optional(inputs, 2))):
        if parameter is None:
            continue
        for sample in range(x.shape[0]):
            rows = _rows(source, sample, parameter, axis)
            operation(rows, _broadcast(parameter, axis), out=_rows(y, sample, parameter, axis))
        source = y
    if source is x:
        np.copyto(y, x)


def _affine_input_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    gy, scale = present(inputs)
    _affine((gy, scale), outputs, attrs, workspace)


def _expand(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    (parameter,) = present(inputs)
    (y,) = present(outputs)
    np.copyto(y, parameter)


KERNELS = {
    "Affine": Kernel(_affine, in_place={0: 0}),
    "AffineInputGrad": Kernel(_affine_input_grad, in_place={0: 0}),
    "Expand": Kernel(_expand),
}
