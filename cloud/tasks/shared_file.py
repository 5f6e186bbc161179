"""A file of a fixed size that several processes use at once, and none changes the size of meanwhile."""

from __future__ import annotations

import fcntl
import os
import random
import time
from pathlib import Path

PATIENCE_SECONDS, PAUSE_SECONDS = 3.0, 0.05
"""How long a file may keep another size while others have it open, who may be about to change it; a pause at most."""


def open_shared(path: Path, size: int) -> int:
    """Descriptor of a file of this size, which cannot change while it is open, in this process or another.

    Raises:
        BlockingIOError: it has another size and stays open elsewhere.
        OSError: it cannot be written to, or the disk is too small.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _give_size(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _give_size(descriptor: int, size: int) -> None:
    """Lock a file, shared, when it has this size; who holds it alone is changing its size, and soon done."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_size == size:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            fcntl.flock(
                descriptor, fcntl.LOCK_UN
            )  # another that starts now, and waits as well, needs it alone
            time.sleep(random.uniform(0, PAUSE_SECONDS))
        else:
            _resize(descriptor, size)


def _resize(descriptor: int, size: int) -> None:
    """Give a file its size and the disk space for it, or leave it as it was."""
    before = os.fstat(descriptor).st_size
    try:
        os.posix_fallocate(descriptor, 0, size)
        os.ftruncate(descriptor, size)
    except OSError:
        os.ftruncate(descriptor, before)
        raise
