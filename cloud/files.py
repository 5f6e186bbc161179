"""Files that are complete or not there at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"
"""Ends the name of a file that is being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a temporary sibling to write; it becomes the file, and a failure does not leave it behind.

    Raises:
        OSError: no space, no right to write; an old file of this name stays as it was.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file, see `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def replace_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, see `replace_bytes`."""
    replace_bytes(path, text.encode("utf-8"))
