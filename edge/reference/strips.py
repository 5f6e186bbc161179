"""Sliding windows over a map, and the columns (im2col) of a strip of output rows.

Padding is never materialised: a strip's columns are zeroed and filled where a real input exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .kernel import STRIP_BYTES, Array, Attrs, integers

MIN_POSITIONS = 24  # fewer columns would turn the matrix product into many matrix-vector products


@dataclass(frozen=True)
class Axis:
    """One spatial axis: input size, kernel taps, stride, padding before, dilation, and output size."""

    size: int
    kernel: int
    stride: int
    pad: int
    dilation: int
    out: int

    def overlap(self, tap: int, start: int, stop: int) -> tuple[slice, slice]:
        """Return which of the outputs start..stop meet an input at `tap`, from start on, and those inputs."""
        offset = tap * self.dilation - self.pad
        first = max(start, -(offset // self.stride))
        last = min(stop, (self.size - 1 - offset) // self.stride + 1)
        if last <= first:
            return slice(0, 0), slice(0, 0)
        begin = first * self.stride + offset
        end = begin + (last - first - 1) * self.stride + 1
        return slice(first - start, last - start), slice(begin, end, self.stride)


@dataclass(frozen=True)
class Part:
    """A rectangle of the output map: rows top..bottom and columns left..right, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    def positions(self, width: int) -> slice:
        """Return the flat positions in a map of `width` columns; a part of several rows has all columns."""
        return slice(self.top * width + self.left, (self.bottom - 1) * width + self.right)


@dataclass(frozen=True)
class Window:
    """A two-dimensional sliding window."""

    rows: Axis
    columns: Axis

    @property
    def taps(self) -> int:
        """Elements of the window."""
        return self.rows.kernel * self.columns.kernel

    @property
    def pointwise(self) -> bool:
        """Whether every output reads exactly the input at its own place."""
        return all(a.kernel == 1 and a.stride == 1 and a.size == a.out for a in (self.rows, self.columns))

    def overlaps(self, part: Part) -> Iterator[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
        """Yield (tap, output slices from the part's corner on, input slices), taps row-major."""
        across = [self.columns.overlap(j, part.left, part.right) for j in range(self.columns.kernel)]
        for i in range(self.rows.kernel):
            rows_out, rows_in = self.rows.overlap(i, part.top, part.bottom)
            for j, (columns_out, columns_in) in enumerate(across):
                yield i * self.columns.kernel + j, (rows_out, columns_out), (rows_in, columns_in)

    @property
    def whole(self) -> Part:
        """The whole output map."""
        return Part(0, self.rows.out, 0, self.columns.out)


def window(space: tuple[int, ...], kernel: tuple[int, ...], attrs: Attrs) -> Window:
    """Return the window of a Conv or MaxPool over an input of `space` = (H, W); no `dilations` means 1."""
    strides, pads = integers(attrs, "strides", 2), integers(attrs, "pads", 4)
    dilations = integers(attrs, "dilations", 2) if "dilations" in attrs else [1, 1]
    axes = []
    for axis in range(2):
        padded = space[axis] + pads[axis] + pads[axis + 2]
        out = (padded - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
        axes.append(Axis(space[axis], kernel[axis], strides[axis], pads[axis], dilations[axis], out))
    return Window(*axes)


def strip_elements(channels: int, view: Window, itemsize: int) -> int:
    """Return the elements of the column buffer: about STRIP_BYTES, as whole rows or a piece of one row."""
    if view.pointwise:
        return 0
    depth, width = channels * view.taps, view.columns.out
    positions = max(MIN_POSITIONS, STRIP_BYTES // (depth * itemsize))
    if positions < width:
        return depth * -(-width // -(-width // positions))
    return depth * width * min(positions // width, view.rows.out)


def strips(channels: int, view: Window, buffer: Array) -> Iterator[tuple[Part, Array]]:
    """Yield (part of the output, columns): columns (channels*taps, positions) in `buffer`, unfilled."""
    depth, width = channels * view.taps, view.columns.out
    rows, across = max(1, buffer.size // (depth * width)), min(width, buffer.size // depth)
    for top in range(0, view.rows.out, rows):
        for left in range(0, width, across):
            part = Part(top, min(top + rows, view.rows.out), left, min(left + across, width))
            count = part.shape[0] * part.shape[1]
            yield part, buffer[: depth * count].reshape(depth, count)


def gathered(x: Array, view: Window, buffer: Array) -> Iterator[tuple[slice, Array]]:
    """Yield (output positions, columns) of x (C, H, W), strip by strip; columns is (C*taps, positions)."""
    channels = x.shape[0]
    if view.pointwise:
        yield slice(0, view.rows.out * view.columns.out), x.reshape(channels, -1)
        return
    for part, columns in strips(channels, view, buffer):
        columns.fill(0)
        filled = columns.reshape(channels, view.taps, *part.shape)
        for tap, (rows_out, across_out), (rows_in, across_in) in view.overlaps(part):
            np.copyto(filled[:, tap, rows_out, across_out], x[:, rows_in, across_in])
        yield part.positions(view.columns.out), columns


def scatter_add(columns: Array, view: Window, part: Part, gx: Array) -> None:
    """Add the columns (C*taps, positions) of a part of the output to gx (C, H, W): gather's transpose."""
    filled = columns.reshape(gx.shape[0], view.taps, *part.shape)
    for tap, (rows_out, across_out), (rows_in, across_in) in view.overlaps(part):
        target = gx[:, rows_in, across_in]
        np.add(target, filled[:, tap, rows_out, across_out], out=target)
