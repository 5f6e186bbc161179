"""Convolution and its input gradient: one matrix product per strip of output rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shape, Shapes, Workspace, integer, optional, present
from .strips import Window, gathered, scatter_add, strip_elements, strips, window


@dataclass(frozen=True)
class Geometry:
    """A grouped convolution: channels and outputs are those of one group."""

    groups: int
    channels: int
    outputs: int
    view: Window

    def inputs_of(self, group: int) -> slice:
        """Input channels of a group."""
        return slice(group * self.channels, (group + 1) * self.channels)

    def outputs_of(self, group: int) -> slice:
        """Output channels of a group."""
        return slice(group * self.outputs, (group + 1) * self.outputs)


def geometry(x: Shape, w: Shape, attrs: Attrs) -> Geometry:
    """Return the geometry from the shapes of the input (N, I, H, W) and the weight (O, I/groups, kh, kw)."""
    groups = integer(attrs, "groups")
    return Geometry(groups, w[1], w[0] // groups, window(x[2:], w[2:], attrs))


def maps(values: Array) -> Array:
    """View (N, C, H, W) as (N, C, H*W)."""
    return values.reshape(values.shape[0], values.shape[1], -1)


def _conv(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, w = present(inputs[:2])
    b = optional(inputs, 2)
    (y,) = present(outputs)
    geo = geometry(x.shape, w.shape, attrs)
    buffer = Workspace(workspace).take(strip_elements(geo.channels, geo.view, y.itemsize), y.dtype)
    weight = w.reshape(w.shape[0], -1)
    for sample, result in zip(x, maps(y), strict=True):
        for group in range(geo.groups):
            rows = geo.outputs_of(group)
            for positions, columns in gathered(sample[geo.inputs_of(group)], geo.view, buffer):
                np.matmul(weight[rows], columns, out=result[rows, positions])
        if b is not None:
            np.add(result, b[:, None], out=result)


def _conv_input_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    gy, w = present(inputs)
    (gx,) = present(outputs)
    geo = geometry(gx.shape, w.shape, attrs)
    buffer = Workspace(workspace).take(strip_elements(geo.channels, geo.view, gx.itemsize), gx.dtype)
    weight = w.reshape(w.shape[0], -1)
    for sample, result in zip(maps(gy), gx, strict=True):
        for group in range(geo.groups):
            rows = geo.outputs_of(group)
            _one_input_grad(sample[rows], weight[rows].T, result[geo.inputs_of(group)], geo.view, buffer)


def _one_input_grad(gy: Array, transposed: Array, gx: Array, view: Window, buffer: Array) -> None:
    if view.pointwise:
        np.matmul(transposed, gy, out=gx.reshape(gx.shape[0], -1))
        return
    gx.fill(0)
    for part, columns in strips(gx.shape[0], view, buffer):
        np.matmul(transposed, gy[:, part.positions(view.columns.out)], out=columns)
        scatter_add(columns, view, part, gx)


def _conv_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    x, w = present(inputs[:2])
    geo = geometry(x, w, attrs)
    return itemsize * strip_elements(geo.channels, geo.view, itemsize)


def _input_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    _, w = present(inputs)
    (gx,) = present(outputs)
    geo = geometry(gx, w, attrs)
    return itemsize * strip_elements(geo.channels, geo.view, itemsize)


KERNELS = {
    "Conv": Kernel(_conv, _conv_workspace),
    "ConvInputGrad": Kernel(_conv_input_grad, _input_grad_workspace),
}
