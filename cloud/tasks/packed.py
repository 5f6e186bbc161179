"""Data sets packed into one .npz: JPEG images of one size that share their header, and the class of each."""

from __future__ import annotations

import io
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...edge.inputs import InputSpec
from ..errors import ConfigError
from .archives import read_archive
from .disk_cache import CacheConfig
from .images import Images, Pixels
from .on_demand import OnDemand, Source, key_of

KEYS = ("jpeg_header", "jpeg_data", "offsets", "labels", "class_names")
SPEC = InputSpec(channels=3, height=84, width=84, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""84x84 RGB, standardised as ImageNet usually is; images of another size are made from these."""
_FILTERS = {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class Packed:
    """The content of one file.

    Attributes:
        dataset: for messages.
        path: the file.
        header: what all images begin with.
        data: the rest of all images, one after the other.
        offsets: int64 (n + 1,), where each begins.
        labels: (n,), indices of `names`.
        names: of the classes.
    """

    dataset: str
    path: Path
    header: bytes
    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    labels: NDArray[np.uint8]
    names: tuple[str, ...]

    def classes(
        self, spec: InputSpec, cache: CacheConfig | None, wanted: Container[str] | None = None
    ) -> Iterator[tuple[str, Images]]:
        """Name and images of each class, or of the wanted ones: all decoded now, or, with a cache, on demand."""
        kept = None if cache is None else cache.open(spec.pixel_shape)
        state = self.path.stat()
        where = (str(self.path.absolute()), state.st_size, state.st_mtime_ns, spec.pixel_shape, spec.resize)
        for label, name in enumerate(self.names):
            if wanted is not None and name not in wanted:
                continue
            rows = np.flatnonzero(self.labels == label)
            sources = [
                Source(key_of(where, int(row)), partial(self._decode, int(row), name, spec)) for row in rows
            ]
            if kept is not None:
                yield name, OnDemand(sources, kept)
                continue
            images = np.empty((len(rows), *spec.pixel_shape), np.uint8)
            for source, out in zip(sources, images, strict=True):
                source.decode(out)
            yield name, images

    def _decode(self, row: int, name: str, spec: InputSpec, out: Pixels) -> None:
        jpeg = self.header + self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()
        size = (spec.width, spec.height)
        try:
            with Image.open(io.BytesIO(jpeg)) as image:
                sample = image.convert("L" if spec.channels == 1 else "RGB")
                sample = sample if sample.size == size else sample.resize(size, _FILTERS[spec.resize])
                out[...] = np.asarray(sample).reshape(out.shape)
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise ConfigError(
                f"{self.dataset}: {self.path}, class {name}: an image cannot be decoded ({error}); fetch it again"
            ) from None


def read_packed(dataset: str, path: Path) -> Packed:
    """Read a file, without decoding its images.

    Raises:
        ConfigError: it is missing, or not of the format above.
    """
    header, data, offsets, labels, names = read_archive(dataset, path, KEYS)
    if len(offsets) != len(labels) + 1 or int(labels.max(initial=0)) >= len(names):
        raise ConfigError(
            f"{dataset}: {path}: expected labels below {len(names)} and one offset more than labels, "
            f"got {len(labels)} labels up to {labels.max(initial=0)} and {len(offsets)} offsets"
        )
    return Packed(dataset, path, header.tobytes(), data, offsets, labels, tuple(map(str, names)))
