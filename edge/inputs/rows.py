"""An array of an .npz, read from its first row on: of the file only pieces are in memory."""

from __future__ import annotations

import math
import zipfile
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

PIECE_BYTES = 1 << 16
ARCHIVE_BYTES = 4 * PIECE_BYTES
"""What reading takes beside the rows: pieces as they are, and unpacked."""
STORED_BYTE_SECONDS, PACKED_BYTE_SECONDS = 1e-9, 6e-9


def member(archive: zipfile.ZipFile, name: str) -> str:
    """Return the name of an array's file in the archive, as numpy.load looks for it."""
    return name if name in archive.NameToInfo else f"{name}.npy"


class Rows:
    """The rows of one array, in order.

    Raises:
        ValueError: the array is in column-major order.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._file: IO[bytes] = archive.open(member(archive, name))
        version = npy_format.read_magic(self._file)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, fortran, _ = read(self._file)
        if fortran and len(shape) > 1:
            raise ValueError("it is in column-major order; save it with numpy.ascontiguousarray")

    def take(self, out: NDArray[Any]) -> None:
        """Read the next rows, as many as fill `out`; raises EOFError where there are no more."""
        memory = out.reshape(-1).view(np.uint8).data
        while memory:
            piece = self._file.read(min(len(memory), PIECE_BYTES))
            if not piece:
                raise EOFError("the file ends before")
            memory[: len(piece)] = piece
            memory = memory[len(piece) :]

    def close(self) -> None:
        """Close the array's file in the archive."""
        self._file.close()


def read_seconds(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> float:
    """Return about what reading the whole array takes on one core of an x86 machine."""
    stored = archive.getinfo(member(archive, name)).compress_type == zipfile.ZIP_STORED
    return math.prod(shape) * dtype.itemsize * (STORED_BYTE_SECONDS if stored else PACKED_BYTE_SECONDS)
