"""A file or directory that cannot be written: what, where, why, how much is needed, and what to do, in one line."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import EdgeAdaptError
from .units import format_bytes

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(target: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn what the system raises while `target` is written into one line that names it, not a temporary sibling.

    Args:
        target: what is being written.
        needed_bytes: about what it takes; None: not known.

    Raises:
        EdgeAdaptError: for an OSError at `target`, beside it or above it; others are as they were.
    """
    try:
        yield
    except OSError as error:
        if not _concerns(error, target):
            raise
        raise EdgeAdaptError(f"{target}: {_reason(error, target, needed_bytes)}") from None


def check_writable(target: Path) -> None:
    """Raise EdgeAdaptError unless something can be made where `target` will be; nothing is left behind."""
    with writing(target):
        Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=_existing(target.parent))).rmdir()


def _concerns(error: OSError, target: Path) -> bool:
    """Tell whether an error is about the target, what is beside it, or a folder above it; no name, a full disk: yes."""
    if error.errno in FULL:  # copying names the file that is read
        return True
    if not isinstance(error.filename, str | os.PathLike):
        return True
    place, parent = Path(error.filename).absolute(), target.absolute().parent
    return place.is_relative_to(parent) or parent.is_relative_to(place)


def _reason(error: OSError, target: Path, needed_bytes: int | None) -> str:
    if error.errno not in FULL:
        return f"cannot be written ({error.strerror or error}); name a place where files can be written"
    free = format_bytes(shutil.disk_usage(_existing(target.parent)).free)
    needed = "" if needed_bytes is None else f"; it takes {needed_bytes} bytes ({format_bytes(needed_bytes)})"
    return f"cannot be written, the disk is full{needed}, {free} are free; make room, or name a place on another disk"


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(one for one in (path, *path.absolute().parents) if one.exists())
