"""Files that are complete or not there at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..edge.units import format_bytes
from .errors import ConfigError

PARTIAL = ".partial"
"""Ends the name of a file that is being written."""


class CannotWrite(OSError):
    """A file cannot be written; its text is one line: which, why, and what to do."""

    def __str__(self) -> str:
        path = Path(self.filename)
        if self.errno != errno.ENOSPC or not path.parent.is_dir():
            return f"{path} cannot be written ({self.strerror}); choose a place where files can be written"
        free = format_bytes(shutil.disk_usage(path.parent).free)
        return (
            f"{path} cannot be written: the disk is full, {free} are free; make room, or choose another disk"
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a temporary sibling to write; it becomes the file, and a failure does not leave it behind.

    Raises:
        CannotWrite: no space, no right to write; an old file of this name stays as it was.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise CannotWrite(error.errno, error.strerror, str(path)) from None
        raise


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file, see `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def replace_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, see `replace_bytes`."""
    replace_bytes(path, text.encode("utf-8"))


def read_text(path: Path) -> str:
    """Read a text file in UTF-8; raises ConfigError where it is something else."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is damaged: not text in UTF-8 ({error.reason}, byte {error.start})"
        ) from None


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises ConfigError where it is none."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is damaged ({error}); train again") from None


def table_with(path: Path, content: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object with these entries; raises ConfigError for anything else."""
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is damaged (expected an object, got {content!r:.40}); train again")
    for name in names:
        if name not in content:
            raise ConfigError(f"{path} is damaged ({name} is missing); train again")
    return content
