"""Maps in 8 or 16 bits: a level an element, and for every sample and channel the smallest value and the step.

The type of the levels, uint8 or uint16, says how many bits. The step between levels is rounded up to as many
significant bits as a level leaves of `SIGNIFICANT_BITS`, so that level * step is exact and x comes out the same whether
or not a processor fuses multiplication and addition. A value that is not finite makes the step or the smallest value of
its channel NaN or infinite, and so whatever comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shape, Shapes, Workspace, aligned, present

SIGNIFICANT_BITS = 24  # of a float32: those of a level and those of a step
CHUNK = 2048  # elements of the buffer that holds levels before they are integers


def _quantise(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """Level = (x - smallest) / step, rounded to the nearest, half to even; range = (smallest, step)."""
    (x,) = present(inputs)
    levels, ranges = present(outputs)
    level_bits = 8 * levels.itemsize
    channels = x.shape[1]
    pieces = Workspace(workspace)
    span = pieces.take(channels, x.dtype)
    buffer = pieces.take(_chunk_elements(x.shape), x.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        for sample in range(x.shape[0]):
            source, target = x[sample].reshape(channels, -1), levels[sample].reshape(channels, -1)
            low, step = ranges[sample, :, 0], ranges[sample, :, 1]
            np.minimum.reduce(source, axis=1, out=low)
            np.maximum.reduce(source, axis=1, out=span)
            np.subtract(span, low, out=span)
            np.divide(span, 2**level_bits - 1, out=span)
            _round_up(span, SIGNIFICANT_BITS - level_bits)
            np.copyto(span, 1, where=span == 0)
            np.copyto(step, span)
            for rows, columns in _parts(source.shape):
                part = source[rows, columns]
                exact = buffer[: part.size].reshape(part.shape)
                np.subtract(part, low[rows, None], out=exact)
                np.divide(exact, step[rows, None], out=exact)
                np.rint(exact, out=exact)
                np.copyto(target[rows, columns], exact, casting="unsafe")


def _round_up(steps: Array, significant_bits: int) -> None:
    """Round numbers >= 0 up to some significant bits."""
    bits = steps.view(np.uint32 if steps.itemsize == 4 else np.uint64)
    dropped = bits.dtype.type(np.finfo(steps.dtype).nmant + 1 - significant_bits)
    np.add(bits, (bits.dtype.type(1) << dropped) - bits.dtype.type(1), out=bits)
    np.right_shift(bits, dropped, out=bits)
    np.left_shift(bits, dropped, out=bits)


def _parts(shape: Shape) -> Iterator[tuple[slice, slice]]:
    """Yield (channels, elements): several whole channels, or a piece of one."""
    channels, plane = shape
    rows = max(1, CHUNK // plane)
    for row in range(0, channels, rows):
        for column in range(0, plane, CHUNK):
            yield slice(row, row + rows), slice(column, column + CHUNK)


def _chunk_elements(x: Shape) -> int:
    return min(CHUNK, prod(x[1:]))


def _quantise_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (x,) = present(inputs)
    return aligned(itemsize * x[1]) + aligned(itemsize * _chunk_elements(x))


def _dequantise(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """X = smallest + level * step."""
    levels, ranges = present(inputs)
    (x,) = present(outputs)
    np.copyto(x, levels)
    with np.errstate(invalid="ignore", over="ignore"):
        for sample in range(x.shape[0]):
            rows = x[sample].reshape(x.shape[1], -1)
            np.multiply(rows, ranges[sample, :, 1, None], out=rows)
            np.add(rows, ranges[sample, :, 0, None], out=rows)


KERNELS = {
    "Quantise": Kernel(_quantise, _quantise_workspace),
    "Dequantise": Kernel(_dequantise),
}
