"""A .safetensors file read by its own header, so that tensors can be mapped in place or copied into memory.

The layout is that of the safetensors README: 8 bytes of header length (little endian), a JSON header, then
the bytes of the tensors back to back. A file that breaks the layout is refused, never repaired.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .files import parse_json, write_file

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip
CODES = {name: code for code, name in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: NumPy type name, shape, first byte from the start of the file, size in bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True)
class TensorFile:
    """The tensors of one .safetensors file, by name.

    Attributes:
        path: the file.
        entries: where each tensor lies, in file order.
        metadata: the header's text pairs.
    """

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> TensorFile:
        """Read and check the header; raises BundleError naming the file, the tensor and what is wrong."""
        if not path.is_file():
            raise BundleError(f"{path}: file is missing; copy the whole directory again")
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or 8 + length > size:
                raise BundleError(f"{path}: truncated: {size} bytes, but the header alone says {8 + length}")
            if length > MAX_HEADER_BYTES:
                raise BundleError(f"{path}: header of {length} bytes, expected at most {MAX_HEADER_BYTES}")
            header = parse_json(file.read(length), f"{path} header")
        metadata = _metadata(header.pop("__metadata__", {}), path)
        entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
        return cls(path, _contiguous(path, entries, 8 + length, size), metadata)

    def mapped(self, name: str) -> NDArray[Any]:
        """Return a read-only view into the memory-mapped file: costs memory only where it is touched."""
        entry = self._find(name)
        flat = np.frombuffer(self._map, entry.dtype, math.prod(entry.shape), entry.offset)
        return flat.reshape(entry.shape)

    def copy(self, name: str) -> NDArray[Any]:
        """Read one tensor into private, writable memory, not through the map (which would count it twice)."""
        entry = self._find(name)
        array: NDArray[Any] = np.empty(entry.shape, entry.dtype)
        with self.path.open("rb", buffering=0) as file:
            file.seek(entry.offset)
            if file.readinto(array.reshape(-1).view(np.uint8).data) != entry.size_bytes:
                raise BundleError(
                    f"{self.path}: tensor {name!r} could not be read whole; copy the file again"
                )
        return array

    def give_back(self) -> None:
        """Let the pages of the map go; they come back from the file where they are read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def check_finite(self) -> None:
        """Raise BundleError naming the first tensor that holds NaN or infinity."""
        for name, entry in self.entries.items():
            value = self.mapped(name) if entry.dtype.startswith("float") else np.zeros(1)
            if value.size and not (np.isfinite(value.min()) and np.isfinite(value.max())):
                raise BundleError(
                    f"{self.path}: tensor {name!r} holds NaN or infinity; train and export the bundle again"
                )

    def require(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Raise BundleError unless tensor `name` is there with this shape and type."""
        entry = self._find(name)
        if (entry.shape, entry.dtype) != (shape, dtype):
            raise BundleError(
                f"{self.path}: tensor {name!r}: expected {dtype} {list(shape)},"
                f" got {entry.dtype} {list(entry.shape)}; export the bundle again"
            )

    def _find(self, name: str) -> Entry:
        if name not in self.entries:
            raise BundleError(f"{self.path}: tensor {name!r} is missing; export the bundle again")
        return self.entries[name]

    @cached_property
    def _map(self) -> mmap.mmap:
        handle = os.open(self.path, os.O_RDONLY)
        try:
            return mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(handle)


def write_tensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a .safetensors file atomically: after a crash there is the old file or the new one, whole.

    Contiguous tensors go from their own memory to the file; the safetensors library would copy all of them first,
    which no plan has room for.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))

    def write(temporary: Path) -> None:
        with temporary.open("wb", buffering=0) as file:
            file.write(_header({name: tensors[name] for name in order}, metadata))
            for name in order:
                data = np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data
                while data:
                    data = data[file.write(data) or 0 :]

    write_file(path, write)


def _header(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None) -> bytes:
    """The length and the JSON header, padded so that the tensors start on a multiple of 8 bytes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    first = 0
    for name, value in tensors.items():
        last = first + value.nbytes
        header[name] = {
            "dtype": CODES[value.dtype.name], "shape": list(value.shape), "data_offsets": [first, last],
        }  # fmt: skip
        first = last
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _metadata(value: Any, path: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise BundleError(f"{path}: __metadata__ must map text to text")
    return value


def _entry(path: Path, name: str, value: Any, data_start: int) -> Entry:
    """Check one tensor of the header on its own."""
    try:
        dtype, shape, (first, last) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise BundleError(f"{path}: tensor {name!r}: expected dtype, shape and two data_offsets") from None
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise BundleError(f"{path}: tensor {name!r} has type {dtype!r}, expected one of {', '.join(DTYPES)}")
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (*shape, first, last)):
        raise BundleError(f"{path}: tensor {name!r}: shape and offsets must be counts, got {value}")
    item_bytes = np.dtype(DTYPES[dtype]).itemsize
    if last - first != math.prod(shape) * item_bytes:
        raise BundleError(
            f"{path}: tensor {name!r}: {dtype} {list(shape)} takes {math.prod(shape) * item_bytes} bytes,"
            f" its offsets say {last - first}"
        )
    if (data_start + first) % item_bytes:
        raise BundleError(
            f"{path}: tensor {name!r} starts at byte {data_start + first}, not a multiple of {item_bytes}"
        )
    return Entry(DTYPES[dtype], shape, data_start + first, last - first)


def _contiguous(path: Path, entries: dict[str, Entry], start: int, size: int) -> dict[str, Entry]:
    """Return the entries in file order; raises BundleError unless they are back to back and fill the file."""
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size_bytes)))
    expected = start
    for name, entry in ordered.items():
        if entry.offset + entry.size_bytes > size:
            raise BundleError(
                f"{path}: tensor {name!r} reaches past the end of the file ({size} bytes): truncated"
            )
        if entry.offset != expected:
            fault = "overlaps the tensor before it" if entry.offset < expected else "leaves a hole before it"
            raise BundleError(f"{path}: tensor {name!r} {fault} (byte {entry.offset}, expected {expected})")
        expected += entry.size_bytes
    if expected != size:
        raise BundleError(f"{path}: {size - expected} bytes after the last tensor")
    return ordered
