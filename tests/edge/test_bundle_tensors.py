"""The .safetensors reader: golden bytes, the library as second reader and writer, hostile headers."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge import BundleError
from edge_adapt.edge.bundle import TensorFile, write_tensors
from safetensors.numpy import load_file, save_file

GOLDEN = (
    b"\x38\x00\x00\x00\x00\x00\x00\x00"
    b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  '
    b"\x00\x00\x80?\x00\x00\x00@"
)
DTYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint8", "bool"]
ONE_BYTE = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
UNALIGNED = b"{" + ONE_BYTE + b',"b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}'


def raw_file(path: Path, header: Any, data: bytes = b"") -> Path:
    """Write a file with this header, valid or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tensor(first: int, last: int, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(last - first) // 4] if shape is None else shape,
        "data_offsets": [first, last],
    }


def test_golden_bytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    path.write_bytes(GOLDEN)
    file = TensorFile.open(path)
    assert file.mapped("w").tolist() == [1.0, 2.0]
    assert file.copy("w").tolist() == [1.0, 2.0]
    assert load_file(path)["w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_the_library_writes_is_read_back(tmp_path: Path, dtype: str) -> None:
    arrays = {
        "matrix": np.arange(6).reshape(2, 3).astype(dtype),
        "scalar": np.array(1, dtype),
        "empty": np.zeros((0, 4), dtype),
    }
    save_file(arrays, tmp_path / "x.safetensors", {"note": "é"})
    file = TensorFile.open(tmp_path / "x.safetensors")
    assert file.metadata == {"note": "é"}
    for name, value in arrays.items():
        for read in (file.mapped(name), file.copy(name)):
            np.testing.assert_array_equal(read, value, strict=True)


def test_what_is_written_the_library_reads(tmp_path: Path) -> None:
    arrays = {"a": np.arange(4, dtype=np.float32)[::2], "b": np.eye(3, dtype=np.float32).T}
    write_tensors(tmp_path / "x.safetensors", arrays, {"step": "3"})
    for name, value in load_file(tmp_path / "x.safetensors").items():
        np.testing.assert_array_equal(value, arrays[name], strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": np.zeros(2, np.float32)})
    before = path.read_bytes()
    with pytest.raises(Exception, match=r".+"):
        write_tensors(path, {"a": np.array([object()])})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]


HOSTILE = {
    "overlap": ({"a": tensor(0, 8), "b": tensor(4, 12)}, b"\0" * 12, "'b' overlaps the tensor before it"),
    "same bytes": ({"a": tensor(0, 8), "b": tensor(0, 8)}, b"\0" * 8, "overlaps the tensor before it"),
    "hole": ({"a": tensor(0, 4), "b": tensor(8, 12)}, b"\0" * 12, "tensor 'b' leaves a hole before it"),
    "past the end": ({"a": tensor(0, 16)}, b"\0" * 12, "tensor 'a' reaches past the end of the file"),
    "far past the end": ({"a": tensor(0, 1 << 62)}, b"\0" * 12, "reaches past the end"),
    "trailing bytes": ({"a": tensor(0, 8)}, b"\0" * 12, "4 bytes after the last tensor"),
    "negative offset": ({"a": tensor(-8, 0)}, b"\0" * 8, "shape and offsets must be counts"),
    "fractional shape": ({"a": tensor(0, 8, [2.0])}, b"\0" * 8, "shape and offsets must be counts"),
    "boolean shape": ({"a": tensor(0, 4, [True])}, b"\0" * 4, "shape and offsets must be counts"),
    "size": ({"a": tensor(0, 8, [3])}, b"\0" * 8, r"F32 \[3\] takes 12 bytes, its offsets say 8"),
    "huge shape": ({"a": tensor(0, 8, [1 << 40, 1 << 40])}, b"\0" * 8, "its offsets say 8"),
    "unknown type": ({"a": tensor(0, 8, dtype="F7")}, b"\0" * 8, "has type 'F7', expected one of F64"),
    "unhashable type": ({"a": tensor(0, 8, dtype=["F32"])}, b"\0" * 8, "has type"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8, "expected dtype, shape and two"),
    "not a table": ({"a": 3}, b"", "expected dtype, shape and two"),
    "metadata": ({"__metadata__": {"a": 1}}, b"", "__metadata__ must map text to text"),
    "unaligned": (UNALIGNED, b"\0" * 5, "tensor 'b' starts at byte .* not a multiple of 4"),
    "twice": (b"{" + ONE_BYTE + b"," + ONE_BYTE + b"}", b"\0", "key 'a' occurs twice"),
    "bad JSON": (b'{"a":', b"", "malformed JSON"),
    "bad UTF-8": (b'{"\xff":1}', b"", "malformed JSON"),
    "deep JSON": (b'{"a":' + b"[" * 100000, b"", "malformed JSON"),
    "a list": (b"[]", b"", "expected a JSON object, got list"),
}  # fmt: skip


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_header_is_refused_by_name(tmp_path: Path, fault: str) -> None:
    header, data, message = HOSTILE[fault]
    path = raw_file(tmp_path / "hostile.safetensors", header, data)
    with pytest.raises(BundleError, match=message) as caught:
        TensorFile.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", range(len(GOLDEN)))
def test_every_truncation_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(GOLDEN[:kept])
    with pytest.raises(BundleError, match="truncated"):
        TensorFile.open(path)


def test_a_header_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:  # sparse: takes no disk
        file.write((200_000_000).to_bytes(8, "little"))
        file.truncate(300_000_000)
    with pytest.raises(BundleError, match="header of 200000000 bytes, expected at most 100000000"):
        TensorFile.open(path)


def test_a_missing_tensor_or_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOLDEN)
    with pytest.raises(BundleError, match="tensor 'v' is missing"):
        TensorFile.open(path).mapped("v")
    with pytest.raises(BundleError, match="file is missing"):
        TensorFile.open(tmp_path / "y.safetensors")


def test_a_file_cut_after_opening_is_noticed_when_copied(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOLDEN)
    file = TensorFile.open(path)
    path.write_bytes(GOLDEN[:-4])
    with pytest.raises(BundleError, match="tensor 'w' could not be read whole"):
        file.copy("w")


def test_writing_needs_no_second_copy_of_the_tensors(tmp_path: Path) -> None:
    tensors = {name: np.ones((512, 1024), np.float32) for name in "abcd"}
    tracemalloc.start()
    write_tensors(tmp_path / "many.safetensors", tensors, {"key": "value"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < tensors["a"].nbytes // 8
    assert (tmp_path / "many.safetensors").stat().st_size > 4 * tensors["a"].nbytes


def test_golden_bytes_are_written(tmp_path: Path) -> None:
    write_tensors(tmp_path / "golden.safetensors", {"w": np.array([1, 2], np.float32)})
    assert (tmp_path / "golden.safetensors").read_bytes() == GOLDEN
