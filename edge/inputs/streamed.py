"""Support sets that are never in memory whole: every pass over them reads the samples again, one at a time."""

from __future__ import annotations

import math
import os
import zipfile
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from ..errors import SupportError
from .answers import ClassLabels
from .archives import DAMAGED, checked_headers
from .folders import class_groups, dearest, priced
from .held import Held
from .images import Header, decode, plain_decode_bytes
from .kinds import Spec
from .labels import labels_bytes, read_labels
from .price import decode_seconds
from .read import existing, images_only
from .rows import ARCHIVE_BYTES, STORED_BYTE_SECONDS, Rows, read_seconds
from .samples import SupportSet
from .spec import InputSpec


def expected_decode_bytes(spec: Spec) -> int:
    """Return what is counted for reading a sample before there is a support set.

    That is an image file of the network's own size, or an .npz, whichever takes more.
    """
    return max(ARCHIVE_BYTES, plain_decode_bytes(spec)) if isinstance(spec, InputSpec) else ARCHIVE_BYTES


def expected_seconds(spec: Spec) -> float:
    """Return about what reading a sample takes before there is a support set, as in `expected_decode_bytes`."""
    if not isinstance(spec, InputSpec):
        return STORED_BYTE_SECONDS * spec.sample_bytes
    return decode_seconds(spec.sample_bytes // 2, spec.width * spec.height)


class Reader(Protocol):
    """Where the samples are."""

    def read(self, index: int, out: NDArray[Any]) -> None:
        """Write a sample as a support set keeps it into `out`; raises SupportError if it cannot be used."""


@dataclass(frozen=True)
class StreamedSupport:
    """Labelled samples that stay where they are; otherwise like `SupportSet`.

    Attributes:
        reader: reads one sample.
        shape: of one sample as it is read.
        dtype: its type.
        given: `labels`, int64 (n,), indices into class_names.
        class_names: sorted folder names, or sorted unique labels written as text.
        spec: the input spec the samples are read for.
        decode_bytes: the largest price of reading one sample, above the sample itself.
        held_bytes: what is kept of all samples: names and labels.
        read_seconds: about what reading all samples once takes.
        converted: what is done to image files, one short phrase each.
        first: of the samples at `reader` that is number 0 here.
    """

    reader: Reader
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    given: Mapping[str, NDArray[Any]]
    class_names: tuple[str, ...]
    spec: Spec
    decode_bytes: int
    held_bytes: int
    read_seconds: float
    converted: tuple[str, ...] = ()
    first: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, int64 (n,)."""
        return self.given["labels"]

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample as it is read."""
        return math.prod(self.shape) * self.dtype.itemsize

    def loss_inputs(self) -> Mapping[str, NDArray[Any]]:
        """Return the labels."""
        return self.given

    def dearest(self) -> tuple[Header, int] | None:
        """Return the image file that takes most to decode and the median price in bytes; None: there are no files."""
        if not isinstance(self.reader, FolderReader):
            return None
        return dearest(map(self.reader.path, range(self.reader.ends[-1])), self.reader.spec)

    def part(self, start: int, stop: int) -> StreamedSupport:
        """Return samples `start` to `stop` - 1."""
        given = {name: array[start:stop] for name, array in self.given.items()}
        return replace(self, given=given, first=self.first + start)

    def fill(self, start: int, out: NDArray[np.float32]) -> None:
        """Write samples start, start+1, ... as network inputs into `out`, float32 (m, ...)."""
        if start + len(out) > len(self):
            raise ValueError(f"asked for samples {start} to {start + len(out) - 1}, there are {len(self)}")
        sample: NDArray[Any] = np.empty((1, *self.shape), self.dtype)
        for offset in range(len(out)):
            self.reader.read(self.first + start + offset, sample[0])
            self.spec.write(sample, out[offset : offset + 1])


AnySupport: TypeAlias = SupportSet | StreamedSupport


def stream_samples(
    path: str | PathLike[str], spec: Spec, labels: ClassLabels, memory_limit_bytes: int | None = None
) -> StreamedSupport:
    """Open a folder with one sub-folder per class, or an .npz of `images` and `labels`; read headers only.

    Args:
        path: folder or .npz file.
        spec: what the network expects.
        labels: how many classes there may be.
        memory_limit_bytes: most that names and labels may take.

    Raises:
        SupportError: as `read_support`; damaged samples are found when they are read.
    """
    held = Held(str(path), memory_limit_bytes)
    source = existing(path)
    if source.is_dir():
        return _folder(source, images_only(source, spec), labels, held)
    return _archive(source, spec, labels, held)


def _archive(path: Path, spec: Spec, labels: ClassLabels, held: Held) -> StreamedSupport:
    name, headers = checked_headers(path, spec, labels)
    shape, dtype = headers[name]
    stored = spec.stored_shape if dtype == np.uint8 else shape[1:]
    reading = labels_bytes(headers["labels"])
    held.add(reading)
    indices, class_names = read_labels(path, headers["labels"], labels, held)
    reader = ArchiveReader(path, name)
    return StreamedSupport(
        reader=reader,
        shape=stored,
        dtype=dtype,
        given={"labels": indices},
        class_names=class_names,
        spec=spec,
        decode_bytes=reading,
        held_bytes=held.total - reading,
        read_seconds=reader.seconds(shape, dtype),
    )


def _folder(folder: Path, spec: InputSpec, labels: ClassLabels, held: Held) -> StreamedSupport:
    groups = dict(class_groups(folder, held))
    labels.check_count(str(folder), len(groups))
    counts = [len(files) for files in groups.values()]
    reader = FolderReader(folder, tuple(groups), tuple(groups.values()), tuple(accumulate(counts)), spec)
    price = priced((reader.path(index) for index in range(sum(counts))), spec)
    return StreamedSupport(
        reader=reader,
        shape=spec.pixel_shape,
        dtype=np.dtype(np.uint8),
        given={"labels": np.repeat(np.arange(len(counts), dtype=np.int64), counts)},
        class_names=tuple(groups),
        spec=spec,
        decode_bytes=price.decode_bytes,
        held_bytes=held.total,
        read_seconds=price.seconds,
        converted=price.converted,
    )


@dataclass(frozen=True)
class FolderReader:
    """Image files by their names.

    Attributes:
        folder: with one sub-folder per class.
        classes: names of these.
        files: per class the names of its files.
        ends: per class the samples up to its last one.
        spec: what the network expects.
    """

    folder: Path
    classes: tuple[str, ...]
    files: tuple[list[str], ...]
    ends: tuple[int, ...]
    spec: InputSpec

    def path(self, index: int) -> Path:
        """Return the path of a sample, made anew: paths that are kept take several times what names take."""
        label = bisect_right(self.ends, index)
        file = self.files[label][index - self.ends[label]]
        return Path(os.path.join(self.folder, self.classes[label], file))

    def read(self, index: int, out: NDArray[Any]) -> None:
        """See `Reader.read`."""
        decode(self.path(index), self.spec, out)


class ArchiveReader:
    """Samples of an array in an .npz, read piece by piece; in ascending order nothing is read twice."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._archive = zipfile.ZipFile(path)
        finalize(self, self._archive.close)
        self._rows: Rows | None = None
        self._next = 0

    def seconds(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> float:
        """Return about what reading all samples takes."""
        return read_seconds(self._archive, self._name, shape, dtype)

    def read(self, index: int, out: NDArray[Any]) -> None:
        """See `Reader.read`."""
        try:
            self._read(index, out)
        except DAMAGED as error:
            raise SupportError(
                f"{self._path}, {self._name}: sample {index} cannot be read ({error})"
            ) from None
        if out.dtype == np.float32 and not (math.isfinite(out.min()) and math.isfinite(out.max())):
            raise SupportError(
                f"{self._path}, {self._name}: sample {index} holds NaN or infinity; remove or repair it"
            )

    def _read(self, index: int, out: NDArray[Any]) -> None:
        if self._rows is None or index < self._next:
            if self._rows is not None:
                self._rows.close()
            self._rows, self._next = Rows(self._archive, self._name), 0
        while self._next <= index:
            self._rows.take(out)
            self._next += 1
