"""Class labels of an .npz, read piece by piece: texts of any length take 8 bytes a sample."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SupportError
from .answers import ClassLabels, Header
from .archives import DAMAGED
from .held import LABEL_BYTES, Held
from .rows import ARCHIVE_BYTES, PIECE_BYTES, Rows

NUMBERED_BYTES = 128
"""What finding the classes of a piece takes for each label: sorted, counted and numbered in 64 bits."""

COPIES = 6
"""Of a label that is longer than a piece, while it is read."""

Indices = NDArray[np.int64]


def labels_bytes(header: Header) -> int:
    """Return what reading the labels takes beside what is kept of them."""
    return max(ARCHIVE_BYTES, COPIES * header[1].itemsize)


def read_labels(
    path: Path, header: Header, labels: ClassLabels, held: Held
) -> tuple[Indices, tuple[str, ...]]:
    """Return class indices, int64 (n,), and the sorted unique labels as text.

    Args:
        path: the .npz.
        header: shape and type of its array `labels`, checked.
        labels: how many classes there may be.
        held: counts what is returned, before it is read.

    Raises:
        SupportError: the labels are damaged, their classes too few or too many, or there is no room for them.
    """
    (count,), dtype = header
    held.add(LABEL_BYTES * count)
    step = max(1, PIECE_BYTES // max(NUMBERED_BYTES, dtype.itemsize))
    piece, indices, found = np.empty(min(step, count), dtype), np.empty(count, np.int64), dict[Any, int]()
    try:
        with zipfile.ZipFile(path) as archive:
            rows = Rows(archive, "labels")
            for start in range(0, count, step):
                part = piece[: min(step, count - start)]
                rows.take(part)
                _number(part, found, indices[start : start + step])
                labels.check_count(str(path), max(2, len(found)))
    except DAMAGED as error:
        raise SupportError(f"{path}, labels: cannot be read ({error})") from None
    labels.check_count(str(path), len(found))
    names = sorted(found)
    ranks = np.empty(len(names), np.int64)
    ranks[[found[name] for name in names]] = np.arange(len(names))
    for start in range(0, count, step):
        indices[start : start + step] = ranks[indices[start : start + step]]
    for name in names:
        held.add_text(str(name))
    return indices, tuple(str(name) for name in names)


def _number(values: NDArray[Any], found: dict[Any, int], out: Indices) -> None:
    """Write the number of every label, as it was first seen."""
    unique, inverse = np.unique(values, return_inverse=True)
    numbers = [found.setdefault(value, len(found)) for value in unique.tolist()]
    out[...] = np.array(numbers, np.int64)[inverse]
