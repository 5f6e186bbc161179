"""The lower triangle of a symmetric matrix in half the memory, and the outer products that are added to it.

Rows go block by block: of a block what lies left of the diagonal block, row-major, then the lower triangle of that.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
BLOCK_ELEMENTS = 4096


def packed_elements(width: int) -> int:
    """Return how many numbers the lower triangle of a (width, width) matrix has."""
    return width * (width + 1) // 2


def add_outer(packed: Doubles, vector: Doubles) -> None:
    """Add the outer product of a vector with itself to a packed triangle."""
    for rows, left, corner in _blocks(len(vector)):
        part = vector[rows]
        _rectangle(packed[left], rows)[...] += np.outer(part, vector[: rows.start])
        packed[corner] += np.outer(part, part)[np.tril_indices(len(part))]


def add_unpacked(matrix: Doubles, packed: Doubles, factor: float) -> None:
    """Add a packed triangle, times a factor, to the lower triangle of a matrix; nothing above it changes."""
    for rows, left, corner in _blocks(len(matrix)):
        matrix[rows, : rows.start] += factor * _rectangle(packed[left], rows)
        matrix[rows, rows][np.tril_indices(rows.stop - rows.start)] += factor * packed[corner]


def _rectangle(flat: Doubles, rows: slice) -> Doubles:
    return flat.reshape(rows.stop - rows.start, rows.start)


def _blocks(width: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield the rows of every block, and where its rectangle and its triangle lie."""
    height, at = max(1, BLOCK_ELEMENTS // width), 0
    for start in range(0, width, height):
        rows = slice(start, min(start + height, width))
        count = rows.stop - start
        middle = at + count * start
        end = middle + packed_elements(count)
        yield rows, slice(at, middle), slice(middle, end)
        at = end
