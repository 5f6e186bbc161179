"""A copy of the updated parameters outside memory, for gradient steps that update while they run.

Where updates happen inside a gradient step, a step that fails or is interrupted has changed some parameters
already. Their values after the last finished step are kept in an unnamed temporary file: it takes no memory of the
process, and disappears with it.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Mapping

import numpy as np

from .base import Array


class KeptParameters:
    """The parameters after the last finished gradient step."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (lives as long as this object)
        weakref.finalize(self, self._file.close)
        self.keep(arrays)

    def keep(self, arrays: Mapping[str, Array]) -> None:
        """Write all arrays, in order."""
        self._file.seek(0)
        for array in arrays.values():
            left = array.reshape(-1).view(np.uint8).data
            while left:
                left = left[self._file.write(left) :]

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Read all arrays back."""
        self._file.seek(0)
        for array in arrays.values():
            left = array.reshape(-1).view(np.uint8).data
            while left:
                left = left[self._file.readinto(left) :]
