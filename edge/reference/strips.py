"""Sliding windows over a map, and the columns (im2col) of a strip of output rows.

Padding is never materialised: a strip's columns are zeroed and filled where a real input exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .kernel import STRIP_BYTES, Array, Attrs, integers


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
        """Return which outputs of start..stop meet an input at `tap`, counted from start, and those inputs."""
        offset = tap * self.dilation - self.pad
        first = max(start, -(offset // self.stride))
        last = min(stop, (self.size - 1 - offset) // self.stride + 1)
        if last <= first:
            return slice(0, 0), slice(0, 0)
        begin = first * self.stride + offset
        end = begin + (last - first - 1) * self.stride + 1
        return slice(first - start, last - start), slice(begin, end, self.stride)


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

    def overlaps(
        self, start: int, stop: int
    ) -> Iterator[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
        """Yield (tap, output slices, input slices) for the output rows start..stop, taps row-major."""
        across = [self.columns.overlap(j, 0, self.columns.out) for j in range(self.columns.kernel)]
        for i in range(self.rows.kernel):
            rows_out, rows_in = self.rows.overlap(i, start, stop)
            for j, (columns_out, columns_in) in enumerate(across):
                yield i * self.columns.kernel + j, (rows_out, columns_out), (rows_in, columns_in)


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
    """Return the elements of the column buffer: about 32 KiB, at least one row, at most the whole map."""
    if view.pointwise:
        return 0
    row = channels * view.taps * view.columns.out
    return row * min(view.rows.out, max(1, STRIP_BYTES // (row * itemsize)))


def strips(channels: int, view: Window, buffer: Array) -> Iterator[tuple[int, int, Array]]:
    """Yield (first row, end row, columns): columns (channels*taps, rows*W_out) in `buffer`, unfilled."""
    depth, width = channels * view.taps, view.columns.out
    rows = buffer.size // (depth * width)
    for start in range(0, view.rows.out, rows):
        stop = min(start + rows, view.rows.out)
        count = (stop - start) * width
        yield start, stop, buffer[: depth * count].reshape(depth, count)


def gathered(x: Array, view: Window, buffer: Array) -> Iterator[tuple[slice, Array]]:
    """Yield (output positions, columns) of x (C, H, W), strip by strip; columns is (C*taps, positions)."""
    channels, width = x.shape[0], view.columns.out
    if view.pointwise:
        yield slice(0, view.rows.out * width), x.reshape(channels, -1)
        return
    for start, stop, columns in strips(channels, view, buffer):
        columns.fill(0)
        filled = columns.reshape(channels, view.taps, stop - start, width)
        for tap, (rows_out, across_out), (rows_in, across_in) in view.overlaps(start, stop):
            np.copyto(filled[:, tap, rows_out, across_out], x[:, rows_in, across_in])
        yield slice(start * width, stop * width), columns


def scatter_add(columns: Array, view: Window, start: int, stop: int, gx: Array) -> None:
    """Add the columns (C*taps, positions) of the rows start..stop to gx (C, H, W): gather's transpose."""
    filled = columns.reshape(gx.shape[0], view.taps, stop - start, view.columns.out)
    for tap, (rows_out, across_out), (rows_in, across_in) in view.overlaps(start, stop):
        target = gx[:, rows_in, across_in]
        np.add(target, filled[:, tap, rows_out, across_out], out=target)
