"""Arrays in .npz files: their headers first, then their data; never pickled objects."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ..errors import SupportError
from .answers import Answers, ClassLabels, Header
from .arrays import (
    SAMPLES,
    check_headers,
    check_sample_count,
    check_samples_header,
    checked_samples,
    support_from_arrays,
)
from .kinds import Spec
from .samples import QuerySet, SupportSet

SAMPLE_NAMES = (SAMPLES, "inputs")
DAMAGED = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, OverflowError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
)
"""What zipfile and NumPy raise at damaged files."""
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Ways to pack that are unpacked piece by piece; LZMA and BZIP2 unpack megabytes at once."""


def support_from_archive(path: Path, spec: Spec, answers: Answers, max_samples: int | None) -> SupportSet:
    """Read an .npz of samples and what `answers` asks for; see `read_support`."""
    name, headers = checked_headers(path, spec, answers)
    check_sample_count(str(path), headers[name][0][0], max_samples)
    given = {part: _read_array(path, part) for part in answers.parts}
    samples = _read_array(path, name)
    return support_from_arrays(str(path), samples, given, spec, answers, max_samples, name)


def checked_headers(path: Path, spec: Spec, answers: Answers) -> tuple[str, dict[str, Header]]:
    """Return the name of the samples in an .npz, and shape and type of every array.

    Raises:
        SupportError: as `read_support`.
    """
    headers = _read_headers(path)
    name = _samples_name(path, headers)
    _require(path, headers, *answers.parts)
    parts = {part: headers[part] for part in answers.parts}
    check_headers(str(path), headers[name], parts, spec, answers, name)
    return name, headers


def query_from_archive(path: Path, spec: Spec) -> QuerySet:
    """Read an .npz of samples, with or without `labels`; see `read_query`."""
    headers = _read_headers(path)
    name = _samples_name(path, headers)
    labels = None
    if "labels" in headers:
        check_headers(str(path), headers[name], headers, spec, ClassLabels(), name)
        labels = tuple(str(label) for label in _read_array(path, "labels"))
    check_samples_header(str(path), headers[name], spec, name)
    samples = checked_samples(str(path), _read_array(path, name), spec, name)
    return QuerySet(samples, tuple(str(index) for index in range(len(samples))), labels, spec)


def _samples_name(path: Path, headers: dict[str, Header]) -> str:
    """Return which of the two names the samples have in this file."""
    present = [name for name in SAMPLE_NAMES if name in headers]
    if len(present) != 1:
        raise SupportError(
            f"{path}: expected one array named {' or '.join(map(repr, SAMPLE_NAMES))}, found {_found(headers)}"
        )
    _require(path, headers, *present)
    return present[0]


def _read_headers(path: Path) -> dict[str, Header]:
    """Return name -> (shape, dtype) of an .npz's arrays without reading their data."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _read_header(archive, name) for name in archive.namelist()}
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise SupportError(f"{path}: not an .npz file that can be read ({reason}); save it again") from None


def _read_header(archive: zipfile.ZipFile, name: str) -> Header:
    if archive.getinfo(name).compress_type not in BOUNDED:
        raise ValueError(f"{name} is packed in a way whose memory has no bound; use numpy.savez_compressed")
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
    except DAMAGED as error:
        raise SupportError(f"{path}, {name}: cannot be read ({error})") from None


def _require(path: Path, headers: dict[str, Header], *names: str) -> None:
    for name in names:
        if name not in headers:
            raise SupportError(f"{path}: expected an array named {name!r}, found {_found(headers)}")
        if headers[name][1].hasobject:
            raise SupportError(f"{path}, {name}: holds Python objects; save plain numbers or strings")


def _found(headers: dict[str, Header]) -> str:
    return ", ".join(sorted(headers)) or "nothing"
