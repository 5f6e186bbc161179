"""Files that are either whole or not there: sha256, JSON with named errors, atomic replacement."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..writing import writing

CHUNK_BYTES = 1 << 16
MAX_JSON_BYTES = 64 << 20
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file, read in 64 KiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises BundleError naming the file and the line that is malformed."""
    if not path.is_file():
        raise BundleError(f"{path}: file is missing; copy the whole directory again")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise BundleError(f"{path}: {path.stat().st_size} bytes of JSON, expected at most {MAX_JSON_BYTES}")
    return parse_json(path.read_bytes(), str(path))


def parse_json(raw: bytes, where: str) -> dict[str, Any]:
    """Parse one JSON object that has no key twice; raises BundleError naming `where`."""
    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=lambda pairs: _unique(pairs, where))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: malformed JSON ({error}); copy or export it again") from None
    if not isinstance(data, dict):
        raise BundleError(f"{where}: expected a JSON object, got {type(data).__name__}")
    return data


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BundleError(f"{where}: key {twice!r} occurs twice")
    return data


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Create or replace `path` atomically: `write` fills a temporary sibling, which is synced and renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value, readable by people, in UTF-8."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def new_directory(target: Path, needed_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary directory that takes the place of `target` at the end, or vanishes on any error.

    An existing `target` is exchanged in one system call on Linux (elsewhere moved aside first), then removed.

    Args:
        target: the directory.
        needed_bytes: about what it takes, for errors; None: not known.

    Raises:
        EdgeAdaptError: it cannot be written; names it, the reason and what to do.
    """
    with writing(target, needed_bytes), _replacing(target) as directory:
        yield directory


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    fresh = scratch / "new"
    try:
        fresh.mkdir()
        yield fresh
        for path in [*fresh.rglob("*"), fresh]:
            _sync(path)
        if not target.exists():
            fresh.rename(target)
        elif not _exchange(fresh, target):
            target.rename(scratch / "old")
            fresh.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths with renameat2(RENAME_EXCHANGE); False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, bytes(one), _AT_FDCWD, bytes(other), _RENAME_EXCHANGE) == 0)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
