"""Decoded images on disk: one file of slots, never larger than asked for, read and written piece by piece.

A slot is a key, a checksum, then the pixels. Nothing else says what the file holds, so a process that was killed
while it wrote leaves one slot that no checksum fits, and processes that write at once cost each other a slot at most.
The file is read with preadv, not mapped: mapped pages would count as memory of the process.
"""

from __future__ import annotations

import math
import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary, finalize

import numpy as np
from numpy.typing import NDArray

from ...edge.units import format_bytes
from ..errors import ConfigError
from .shared_file import open_shared

KEY_BYTES, CHECK_BYTES = 16, 4
HEADER_BYTES = KEY_BYTES + CHECK_BYTES
GROUP = 1024
"""Slots whose headers are looked at together."""
PAGE_BYTES = 4096
"""Smaller slots are read whole: the disk reads pages anyway."""
_EMPTY = bytes(KEY_BYTES)
Pixels = NDArray[np.uint8]


def default_folder() -> Path:
    """Where caches lie if nothing is said: edge-adapt in $XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-adapt"


@dataclass(frozen=True)
class CacheConfig:
    """Where a cache lies, and how many bytes its file may have at most (one file per shape of images)."""

    folder: Path
    size_bytes: int

    def open(self, shape: tuple[int, int, int]) -> DiskCache:
        """The cache of images of a shape; within a process all that use the file share one.

        Raises:
            ConfigError: see `DiskCache`.
        """
        name = (self.folder.resolve(), shape, self.size_bytes)
        cache = _OPEN.get(name)
        if cache is None:
            cache = _OPEN[name] = DiskCache(self.folder, shape, self.size_bytes)
        return cache


class DiskCache:
    """The images used last, of one shape, in a file that keeps them between runs.

    Several data sets and processes may share the file, if they agree on its size.

    Args:
        folder: of the file, made if missing.
        shape: of an image, uint8 (H, W, C).
        size_bytes: the file has at most so many.

    Raises:
        ConfigError: the size holds no image or does not fit on the disk, or another process uses the file with
            another size.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int], size_bytes: int) -> None:
        self.shape, self.path = shape, folder / f"{'x'.join(map(str, shape))}.pixels"
        self._slot_bytes = HEADER_BYTES + math.prod(shape)
        self.slots = size_bytes // self._slot_bytes
        if self.slots < 1:
            raise ConfigError(
                f"data.cache_size: {format_bytes(size_bytes)} holds no image of shape {shape}, which takes "
                f"{format_bytes(self._slot_bytes)}"
            )
        self._file = self._opened(size_bytes)
        finalize(self, os.close, self._file)
        self._used, self._free, self._fresh = OrderedDict[bytes, int](), list[int](), 0
        for keys in self._filled():
            self._take_over(keys)

    def __contains__(self, key: bytes) -> bool:
        return key in self._used

    def read(self, key: bytes, decode: Callable[[Pixels], None], out: Pixels) -> None:
        """Fill `out`, uint8 (H, W, C) and contiguous, from the file, or by `decode` and then keep it.

        Args:
            key: 16 bytes that stand for the image, never all zero.
            decode: writes the image into the array that it is given.
            out: where to.
        """
        if not self._found(key, out):
            decode(out)
            self._keep(key, out)

    def _found(self, key: bytes, out: Pixels) -> bool:
        slot = self._used.get(key)
        if slot is None:
            return False
        header = bytearray(HEADER_BYTES)
        count = os.preadv(self._file, [header, out.reshape(-1).data], slot * self._slot_bytes)
        if count == self._slot_bytes and header == key + _check(out):
            self._used.move_to_end(key)
            return True
        del self._used[key]  # another process has put something else there, or was killed while it did
        self._free.append(slot)
        return False

    def _keep(self, key: bytes, image: Pixels) -> None:
        slot = self._slot_for(key)
        os.pwritev(self._file, [key + _check(image), image.reshape(-1).data], slot * self._slot_bytes)
        self._used[key] = slot

    def _slot_for(self, key: bytes) -> int:
        """A slot that nobody has filled, or that of the image used longest ago."""
        while (slot := self._unused()) is not None:
            found = self._key_in(slot)
            if found in (_EMPTY, key) or found in self._used:
                return slot
            self._used[found] = slot  # another process filled it meanwhile
        return self._used.popitem(last=False)[1]

    def _unused(self) -> int | None:
        """A slot that was given up, or else the first of those that this process has not looked at."""
        if self._free:
            return self._free.pop()
        if self._fresh == self.slots:
            return None
        self._fresh += 1
        return self._fresh - 1

    def _key_in(self, slot: int) -> bytes:
        return os.pread(self._file, KEY_BYTES, slot * self._slot_bytes)

    def _filled(self) -> Iterator[list[bytes]]:
        """Keys of all slots, a group at a time, up to a group without any: slots are filled in this order."""
        for start in range(0, self.slots, GROUP):
            keys = self._keys_in(start, min(GROUP, self.slots - start))
            if not any(key != _EMPTY for key in keys):
                return
            yield keys

    def _keys_in(self, start: int, count: int) -> list[bytes]:
        size = self._slot_bytes
        if size > PAGE_BYTES:
            return [self._key_in(slot) for slot in range(start, start + count)]
        found = os.pread(self._file, count * size, start * size)
        return [found[at : at + KEY_BYTES] for at in range(0, count * size, size)]

    def _take_over(self, keys: list[bytes]) -> None:
        """The next slots, with what they hold."""
        for slot, key in enumerate(keys, self._fresh):
            if key == _EMPTY or key in self._used:
                self._free.append(slot)
            else:
                self._used[key] = slot
        self._fresh += len(keys)

    def _opened(self, size_bytes: int) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return open_shared(self.path, self.slots * self._slot_bytes)
        except BlockingIOError:
            raise ConfigError(
                f"data.cache_size: {self.path} is in use with another size; give the same one, or another folder "
                "(data.cache)"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"data.cache: {self.path}: {format_bytes(size_bytes)} cannot be kept there ({error.strerror}); "
                "choose another folder, or a smaller data.cache_size"
            ) from None


def _check(image: Pixels) -> bytes:
    return zlib.crc32(image.reshape(-1).data).to_bytes(CHECK_BYTES, "little")


_OPEN: WeakValueDictionary[tuple[Path, tuple[int, int, int], int], DiskCache] = WeakValueDictionary()
