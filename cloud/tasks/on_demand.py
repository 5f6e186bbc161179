"""Classes of images that are decoded when they are asked for, through a disk cache or each time anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...edge.errors import SupportError
from ...edge.inputs import InputSpec
from ...edge.inputs.images import decode, read_header
from ..errors import ConfigError
from .disk_cache import KEY_BYTES, DiskCache
from .images import Pixels, Rows

UINT8 = np.dtype(np.uint8)


@dataclass(frozen=True)
class Source:
    """One image: what stands for it in a cache, 16 bytes, and what decodes it into uint8 (H, W, C)."""

    key: bytes
    decode: Callable[[Pixels], None]


@dataclass(frozen=True)
class OnDemand:
    """The images of one class, read one by one; see `images.Images`."""

    sources: Sequence[Source]
    cache: DiskCache

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, H, W, C)."""
        return len(self.sources), *self.cache.shape

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """uint8."""
        return UINT8

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, rows: Rows) -> NDArray[np.uint8]:
        images = np.empty((len(rows), *self.cache.shape), np.uint8)
        for row, out in zip(rows, images, strict=True):
            source = self.sources[row]
            self.cache.read(source.key, source.decode, out)
        return images


def key_of(*parts: object) -> bytes:
    """What stands for an image: where it comes from, and how it is converted."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=KEY_BYTES).digest()


def from_files(files: Sequence[Path], spec: InputSpec, cache: DiskCache) -> OnDemand:
    """A class of image files; those that the cache lacks must have headers of images that can be converted.

    Raises:
        SupportError: naming the file that cannot be used.
    """
    sources = []
    for file in files:
        state = file.stat()
        key = key_of(str(file.absolute()), state.st_size, state.st_mtime_ns, spec.pixel_shape, spec.resize)
        if key not in cache:
            read_header(file, spec)
        sources.append(Source(key, partial(_decode_file, file, spec)))
    return OnDemand(sources, cache)


def _decode_file(file: Path, spec: InputSpec, out: Pixels) -> None:
    try:
        decode(file, spec, out)
    except SupportError as error:
        raise ConfigError(f"dataset: {error}") from None
