"""Folders of image files: headers of all of them first, then one decode at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import numpy as np
from numpy.typing import NDArray

from ..errors import SupportError
from ..units import format_bytes
from .answers import ClassLabels
from .arrays import check_sample_count
from .held import LABEL_BYTES, Held
from .images import Header, decode, read_header
from .samples import QuerySet, SupportSet
from .spec import InputSpec


def support_from_folder(
    folder: Path,
    spec: InputSpec,
    labels: ClassLabels,
    max_samples: int | None,
    memory_limit_bytes: int | None,
) -> SupportSet:
    """Read a folder with one sub-folder per class; see `read_support`."""
    classes = class_files(folder)
    files = [file for group in classes.values() for file in group]
    labels.check_count(str(folder), len(classes))
    check_sample_count(str(folder), len(files), max_samples)
    images, decode_bytes, converted = read_files(files, spec, memory_limit_bytes)
    indices = np.repeat(np.arange(len(classes), dtype=np.int64), [len(group) for group in classes.values()])
    return SupportSet(images, {"labels": indices}, tuple(classes), spec, decode_bytes, converted)


def query_from_folder(folder: Path, spec: InputSpec, memory_limit_bytes: int | None) -> QuerySet:
    """Read a folder of images, or of class sub-folders; see `read_query`."""
    loose = [entry for entry in _visible(folder) if not entry.is_dir()]
    classes = {} if loose else class_files(folder)
    if loose and len(loose) < len(_visible(folder)):
        raise SupportError(
            f"{folder}: holds images beside sub-folders ({loose[0].name}); keep one of the two"
        )
    files = loose or [file for group in classes.values() for file in group]
    if not files:
        raise SupportError(f"{folder}: there are no images in it")
    images, decode_bytes, converted = read_files(files, spec, memory_limit_bytes)
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    labels = None if loose else tuple(file.parent.name for file in files)
    return QuerySet(images, names, labels, spec, decode_bytes, converted)


def read_files(
    files: list[Path], spec: InputSpec, memory_limit_bytes: int | None = None
) -> tuple[NDArray[np.uint8], int, tuple[str, ...]]:
    """Decode image files to uint8 (n, H, W, C).

    Returns:
        The images, the largest price of one decode in bytes, and what was converted.

    Raises:
        SupportError: naming the file that cannot be used or costs more than the limit.
    """
    price = priced(files, spec, memory_limit_bytes)
    images = np.empty((len(files), *spec.pixel_shape), np.uint8)
    for file, out in zip(files, images, strict=True):
        decode(file, spec, out)
    return images, price.decode_bytes, price.converted


@dataclass(frozen=True)
class Price:
    """What reading image files takes.

    Attributes:
        decode_bytes: the largest price of one decode.
        converted: what is converted, one short phrase each.
        seconds: about what decoding all of them takes.
    """

    decode_bytes: int
    converted: tuple[str, ...]
    seconds: float


def priced(files: Iterable[Path], spec: InputSpec, memory_limit_bytes: int | None = None) -> Price:
    """Read the headers of image files.

    Raises:
        SupportError: naming the file that cannot be used or costs more than the limit.
    """
    dearest: Header | None = None
    counts, seconds = Counter[str](), 0.0
    for header in (read_header(file, spec) for file in files):
        counts.update(header.converted)
        seconds += header.seconds
        if dearest is None or header.decode_bytes > dearest.decode_bytes:
            dearest = header
    assert dearest is not None
    if memory_limit_bytes is not None and dearest.decode_bytes > memory_limit_bytes:
        raise SupportError(
            f"{dearest.path}: decoding it takes {format_bytes(dearest.decode_bytes)}, above the limit of "
            f"{format_bytes(memory_limit_bytes)}; scale it down or save it as a baseline JPEG"
        )
    phrases = (f"{count} image{'s' * (count > 1)} {phrase}" for phrase, count in counts.items())
    return Price(dearest.decode_bytes, tuple(phrases), seconds)


def dearest(files: Iterable[Path], spec: InputSpec) -> tuple[Header, int]:
    """Return the header of the image whose decoding takes most, and the median of all prices in bytes."""
    headers = [read_header(file, spec) for file in files]
    most = max(headers, key=lambda header: header.decode_bytes)
    return most, median_low(header.decode_bytes for header in headers)


def class_files(folder: Path) -> dict[str, list[Path]]:
    """List the files of each class sub-folder, both sorted by name; hidden entries are ignored.

    Raises:
        SupportError: a file beside the class folders, a folder inside one, an empty one.
    """
    groups = class_groups(folder, Held(str(folder), None))
    return {name: [folder / name / file for file in files] for name, files in groups}


def class_groups(folder: Path, held: Held) -> Iterator[tuple[str, list[str]]]:
    """Yield one class at a time the names of what `class_files` lists; `held` counts them and their labels.

    Raises:
        SupportError: as `class_files`; or there is no room for the names.
    """
    for name in _names(folder, held, folders=True):
        files = _names(folder / name, held, folders=False)
        if not files:
            raise SupportError(f"{folder / name}: the class folder is empty; add images or remove it")
        yield name, files


def _names(folder: Path, held: Held, folders: bool) -> list[str]:
    """List the names in a folder without hidden ones, sorted: only folders, or none."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                _check_entry(folder, entry, folders)
                held.add_text(entry.name)
                held.add(0 if folders else LABEL_BYTES)
                names.append(entry.name)
    except OSError as error:
        where = error.filename or folder
        raise SupportError(f"{where}: cannot be read ({error.strerror}); repair or remove it") from None
    names.sort()
    return names


def _check_entry(folder: Path, entry: os.DirEntry[str], folders: bool) -> None:
    """Raise SupportError unless it is a folder, or a file, and its name can be written to a report."""
    if entry.is_dir() != folders:
        raise SupportError(_misplaced(folder / entry.name, folders))
    if not folders and not entry.is_file():
        raise SupportError(f"{folder / entry.name}: neither a file nor a folder; remove it")
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise SupportError(f"{str(folder / entry.name)!r}: its name is not UTF-8; rename it") from None


def _misplaced(path: Path, folders: bool) -> str:
    if folders:
        return f"{path}: expected one sub-folder per class; move the file into one, or away"
    return f"{path}: a folder inside a class folder; a class holds images only"


def _visible(folder: Path) -> list[Path]:
    """List a folder's entries sorted by name, without hidden ones."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
