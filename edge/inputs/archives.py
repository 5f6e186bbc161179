"""Arrays in .npz files: their headers first, then their data; never pickled objects."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ..errors import SupportError
from .arrays import (
    check_array_kinds,
    check_counts,
    check_image_kind,
    checked_images,
    support_from_arrays,
)
from .samples import QuerySet, SupportSet
from .spec import InputSpec

_Header = tuple[tuple[int, ...], np.dtype[Any]]
_DAMAGED = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def support_from_archive(
    path: Path, spec: InputSpec, max_classes: int | None, max_samples: int | None
) -> SupportSet:
    """Read an .npz of `images` and `labels`; see `read_support`."""
    headers = _read_headers(path)
    _require(path, headers, "images", "labels")
    _check_headers(path, headers, spec)
    check_counts(str(path), headers["images"][0][0], 2, None, max_samples)
    labels = _read_array(path, "labels")
    images = _read_array(path, "images")
    return support_from_arrays(str(path), images, labels, spec, max_classes, max_samples)


def query_from_archive(path: Path, spec: InputSpec) -> QuerySet:
    """Read an .npz of `images`, with or without `labels`; see `read_query`."""
    headers = _read_headers(path)
    _require(path, headers, "images")
    _check_headers(path, headers, spec)
    labels = None
    if "labels" in headers:
        labels = tuple(str(label) for label in _read_array(path, "labels"))
    images = checked_images(str(path), _read_array(path, "images"), spec)
    return QuerySet(images, tuple(str(index) for index in range(len(images))), labels, spec)


def _read_headers(path: Path) -> dict[str, _Header]:
    """Return name -> (shape, dtype) of an .npz's arrays without reading their data."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _read_header(archive, name) for name in archive.namelist()}
    except _DAMAGED as error:
        raise SupportError(f"{path}: not an .npz file that can be read ({error})") from None


def _read_header(archive: zipfile.ZipFile, name: str) -> _Header:
    with archive.open(name) as file:
        version = npy_format.read_magic(file)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, _, dtype = read(file)
        announced = math.prod(shape) * dtype.itemsize
        present = archive.getinfo(name).file_size - file.tell()
        if announced != present and not dtype.hasobject:
            raise ValueError(f"{name} announces {announced} bytes of data and has {present}")
        return shape, dtype


def _read_array(path: Path, name: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: NDArray[Any] = archive[name]
            return array
    except _DAMAGED as error:
        raise SupportError(f"{path}, {name}: cannot be read ({error})") from None


def _require(path: Path, headers: dict[str, _Header], *names: str) -> None:
    for name in names:
        if name not in headers:
            found = ", ".join(sorted(headers)) or "nothing"
            raise SupportError(f"{path}: expected an array named {name!r}, found {found}")
        if headers[name][1].hasobject:
            raise SupportError(f"{path}, {name}: holds Python objects; save plain numbers or strings")


def _check_headers(path: Path, headers: dict[str, _Header], spec: InputSpec) -> None:
    shape, dtype = headers["images"]
    if "labels" in headers:
        label_shape, label_dtype = headers["labels"]
        check_array_kinds(str(path), dtype, shape, label_dtype, label_shape, spec)
    else:
        check_image_kind(str(path), dtype, shape, spec)
