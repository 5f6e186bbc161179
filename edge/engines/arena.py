"""The arena: one anonymous allocation that holds everything an adaptation writes."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_PATTERN_BYTES = 4096
_PATTERN_SEED = 0x5EED
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
"""Python's own choice is memory that could be shared with other processes, which is never in huge pages."""


class Arena:
    """Zeroed memory whose pages become resident when they are first written; huge pages where the system has them.

    With `sentinel` it is filled with a pseudo-random pattern, so that the highest byte that was ever changed
    can be found afterwards.
    """

    def __init__(self, size_bytes: int, sentinel: bool = False) -> None:
        self.size_bytes = size_bytes
        self._memory = mmap.mmap(-1, max(1, size_bytes), **_PRIVATE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._memory.madvise(mmap.MADV_HUGEPAGE)  # only whole ones inside: nothing beside the arena
        self._pattern = _pattern() if sentinel else None
        if self._pattern is not None:
            for start in range(0, size_bytes, _PATTERN_BYTES):
                part = self._bytes(start)
                part[:] = self._pattern[: part.size]

    @property
    def address(self) -> int:
        """Address of the first byte."""
        return int(self.view(0, (0,), np.uint8).ctypes.data)

    def view(self, offset: int, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array over the arena's memory; raises ValueError outside it."""
        array: NDArray[Any] = np.ndarray(tuple(shape), dtype, buffer=self._memory, offset=offset)
        if offset + array.nbytes > self.size_bytes:
            raise ValueError(
                f"{array.nbytes} bytes at {offset} are outside an arena of {self.size_bytes} bytes"
            )
        return array

    def highest_changed(self) -> int | None:
        """Return one more than the highest byte that differs from the sentinel; None without a sentinel."""
        if self._pattern is None:
            return None
        for start in reversed(range(0, self.size_bytes, _PATTERN_BYTES)):
            part = self._bytes(start)
            changed = np.flatnonzero(part != self._pattern[: part.size])
            if changed.size:
                return start + int(changed[-1]) + 1
        return 0

    def _bytes(self, start: int) -> NDArray[np.uint8]:
        return self.view(start, (min(_PATTERN_BYTES, self.size_bytes - start),), np.uint8)


def _pattern() -> NDArray[np.uint8]:
    return np.random.default_rng(_PATTERN_SEED).integers(1, 256, _PATTERN_BYTES, np.uint8)
