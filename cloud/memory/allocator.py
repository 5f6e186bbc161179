"""How the process holds its memory; changes speed only."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER, _LARGEST = 2**31 - 1, 32 * 2**20


def keep_freed_memory() -> bool:
    """Let the C library reuse freed blocks instead of handing them back to the kernel after every outer step.

    Zeroing returned pages took 20 % of a step's processor time (5-way 5-shot 4Conv, 28 pixels). For programs
    to call, not for libraries: it holds for the whole process.

    Returns:
        Whether the C library (glibc's mallopt) took it.
    """
    try:
        library = ctypes.CDLL(None)
        taken = [library.mallopt(_TRIM_THRESHOLD, _NEVER), library.mallopt(_MMAP_THRESHOLD, _LARGEST)]
    except (OSError, AttributeError):
        return False
    return all(taken)
