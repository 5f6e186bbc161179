"""Support sets that are never in memory whole: every pass over them reads the samples again, one at a time."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias
from weakref import finalize

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ..errors import SupportError
from .answers import ClassLabels
from .archives import DAMAGED, read_labels
from .folders import class_groups, priced
from .images import decode
from .kinds import Spec
from .read import existing, images_only
from .samples import SupportSet
from .spec import InputSpec

PIECE_BYTES = 1 << 16
ARCHIVE_BYTES = 4 * PIECE_BYTES
"""What reading one sample of an .npz takes beside the sample: pieces as they are, and unpacked."""


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
        memory_limit_bytes: the largest price of one decode that is allowed.

    Raises:
        SupportError: as `read_support`; damaged samples are found when they are read.
    """
    source = existing(path)
    if source.is_dir():
        return _folder(source, images_only(source, spec), labels, memory_limit_bytes)
    header, name, given, class_names = read_labels(source, spec, labels)
    shape, dtype = header
    stored = spec.stored_shape if dtype == np.uint8 else shape[1:]
    reader = ArchiveReader(source, name)
    return StreamedSupport(reader, stored, dtype, given, class_names, spec, ARCHIVE_BYTES)


def _folder(folder: Path, spec: InputSpec, labels: ClassLabels, limit: int | None) -> StreamedSupport:
    names, counts = list[str](), dict[str, int]()
    for name, group in class_groups(folder):
        names += (f"{name}/{file.name}" for file in group)
        counts[name] = len(group)
    labels.check_count(str(folder), len(counts))
    decode_bytes, converted = priced((folder / name for name in names), spec, limit)
    indices = np.repeat(np.arange(len(counts), dtype=np.int64), list(counts.values()))
    reader = FolderReader(folder, tuple(names), spec)
    dtype = np.dtype(np.uint8)
    return StreamedSupport(
        reader, spec.pixel_shape, dtype, {"labels": indices}, tuple(counts), spec, decode_bytes, converted
    )


@dataclass(frozen=True)
class FolderReader:
    """Image files by their paths in a folder."""

    folder: Path
    names: tuple[str, ...]
    spec: InputSpec

    def read(self, index: int, out: NDArray[Any]) -> None:
        """See `Reader.read`."""
        decode(self.folder / self.names[index], self.spec, out)


class ArchiveReader:
    """Samples of an array in an .npz, read piece by piece; in ascending order nothing is read twice."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._archive = zipfile.ZipFile(path)
        finalize(self, self._archive.close)
        self._file: IO[bytes] | None = None
        self._next = 0

    def read(self, index: int, out: NDArray[Any]) -> None:
        """See `Reader.read`."""
        try:
            if self._file is None or index < self._next:
                self._rewind()
            while self._next <= index:
                self._take(out)
        except DAMAGED as error:
            raise SupportError(
                f"{self._path}, {self._name}: sample {index} cannot be read ({error})"
            ) from None
        if out.dtype == np.float32 and not (math.isfinite(out.min()) and math.isfinite(out.max())):
            raise SupportError(
                f"{self._path}, {self._name}: sample {index} holds NaN or infinity; remove or repair it"
            )

    def _rewind(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._archive.open(f"{self._name}.npy")
        version = npy_format.read_magic(self._file)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        _, fortran, _ = read(self._file)
        if fortran:
            raise ValueError("it is in column-major order; save it with numpy.ascontiguousarray")
        self._next = 0

    def _take(self, out: NDArray[Any]) -> None:
        """Read the next sample."""
        assert self._file is not None
        memory = out.reshape(-1).view(np.uint8).data
        while memory:
            piece = self._file.read(min(len(memory), PIECE_BYTES))
            if not piece:
                raise EOFError("the file ends before")
            memory[: len(piece)] = piece
            memory = memory[len(piece) :]
        self._next += 1
