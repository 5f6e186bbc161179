"""Files that are complete or not there at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PARTIAL = ".partial"
"""Ends the name of a file that is being written."""


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file through a temporary sibling, which a failure does not leave behind.

    Raises:
        OSError: no space, no right to write; an old file of this name stays as it was.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def replace_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, see `replace_bytes`."""
    replace_bytes(path, text.encode("utf-8"))
