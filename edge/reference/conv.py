"""Convolution in one or two dimensions and its input gradient: matrix products over strips of output rows.

A 1-D convolution is one of a single row. The groups of a grouped (depthwise) convolution share a buffer, as many
as fit, so that Python's loop is over chunks of groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .kernel import (
    Array,
    Arrays,
    Attrs,
    Kernel,
    Shape,
    Shapes,
    Workspace,
    integer,
    integers,
    optional,
    present,
)
from .strips import Window, gathered, scatter_add, strip_elements, strips, window

CHUNK_BYTES = 128 * 1024  # of the columns of several groups; half of it: a third slower for 960 channels


@dataclass(frozen=True)
class Geometry:
    """A grouped convolution: channels and outputs are those of one group, `chunk` groups are done at once."""

    groups: int
    channels: int
    outputs: int
    view: Window
    chunk: int
    column_elements: int

    @property
    def depth(self) -> int:
        """Products of one output element."""
        return self.channels * self.view.taps

    def chunks(self) -> Iterator[slice]:
        """Yield the groups, `chunk` at a time."""
        for start in range(0, self.groups, self.chunk):
            yield slice(start, min(start + self.chunk, self.groups))

    def inputs_of(self, groups: slice) -> slice:
        """Input channels of some groups."""
        return slice(groups.start * self.channels, groups.stop * self.channels)

    def of_groups(self, values: Array) -> Array:
        """View (N, G*O, ...) as (N, G, O, positions)."""
        return values.reshape(values.shape[0], self.groups, values.shape[1] // self.groups, -1)

    def weights(self, w: Array) -> Array:
        """View (G*O, I, ...) as (G, O, I*taps)."""
        return w.reshape(self.groups, self.outputs, self.depth)


def geometry(x: Shape, w: Shape, attrs: Attrs, itemsize: int) -> Geometry:
    """Return the geometry from the shapes of the input (N, I, [H,] W) and the weight (O, I/groups, [kh,] kw)."""
    groups, view = integer(attrs, "groups"), _window(x[2:], w[2:], attrs)
    channels, outputs = w[1], w[0] // groups
    columns = strip_elements(channels, view, itemsize)
    one_group = max(columns, outputs * channels * view.taps) * itemsize
    chunk = max(1, min(groups, CHUNK_BYTES // one_group))
    return Geometry(groups, channels, outputs, view, chunk, chunk * columns)


def _window(space: Shape, kernel: Shape, attrs: Attrs) -> Window:
    if len(space) == 2:
        return window(space, kernel, attrs)
    (stride,), (dilation,) = integers(attrs, "strides", 1), integers(attrs, "dilations", 1)
    begin, end = integers(attrs, "pads", 2)
    row = {"strides": [1, stride], "pads": [0, begin, 0, end], "dilations": [1, dilation]}
    return window((1, *space), (1, *kernel), row)


def planes(values: Array) -> Array:
    """View (N, C, L) as (N, C, 1, L); (N, C, H, W) stays."""
    return values.reshape(*values.shape[:2], -1, values.shape[-1])


def _conv(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    x, w = present(inputs[:2])
    b = optional(inputs, 2)
    (y,) = present(outputs)
    geo = geometry(x.shape, w.shape, attrs, y.itemsize)
    buffer = Workspace(workspace).take(geo.column_elements, y.dtype)
    weights = geo.weights(w)
    for sample, result in zip(planes(x), geo.of_groups(y), strict=True):
        for groups in geo.chunks():
            for positions, columns in gathered(sample[geo.inputs_of(groups)], geo.view, buffer):
                matrices = columns.reshape(groups.stop - groups.start, geo.depth, -1)
                np.matmul(weights[groups], matrices, out=result[groups, :, positions])
        if b is not None:
            np.add(result, b.reshape(geo.groups, geo.outputs, 1), out=result)


def _conv_input_grad(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    gy, w = present(inputs)
    (gx,) = present(outputs)
    geo = geometry(gx.shape, w.shape, attrs, gx.itemsize)
    buffer = Workspace(workspace).take(geo.column_elements, gx.dtype)
    transposed = geo.weights(w).swapaxes(1, 2)
    for sample, result in zip(geo.of_groups(gy), planes(gx), strict=True):
        for groups in geo.chunks():
            target = result[geo.inputs_of(groups)]
            _input_grad(sample[groups], transposed[groups], target, geo.view, buffer)


def _input_grad(gy: Array, transposed: Array, gx: Array, view: Window, buffer: Array) -> None:
    """Write the gradient gx (G*I, H, W) of some groups from gy (G, O, positions)."""
    if view.pointwise:
        np.matmul(transposed, gy, out=gx.reshape(*transposed.shape[:2], -1))
        return
    gx.fill(0)
    for part, columns in strips(gx.shape[0], view, buffer):
        products = columns.reshape(*transposed.shape[:2], -1)
        gradient = gy[:, :, part.positions(view.columns.out)]
        if gy.shape[1] == 1:  # outer products, three times faster than as matrix products
            np.multiply(transposed, gradient, out=products)
        else:
            np.matmul(transposed, gradient, out=products)
        scatter_add(columns, view, part, gx)


def _conv_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    x, w = present(inputs[:2])
    return itemsize * geometry(x, w, attrs, itemsize).column_elements


def _input_grad_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    _, w = present(inputs)
    (gx,) = present(outputs)
    return itemsize * geometry(gx, w, attrs, itemsize).column_elements


KERNELS = {
    "Conv": Kernel(_conv, _conv_workspace),
    "ConvInputGrad": Kernel(_conv_input_grad, _input_grad_workspace),
}
