"""Damaged .npz files: whatever bytes are wrong, one line that names the file."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge.errors import SupportError
from edge_adapt.edge.inputs import ClassLabels, InputSpec, read_query, read_support, stream_samples

SPEC = InputSpec(1, 6, 6, (0.5,), (0.5,))
HEADER_BYTES = 128
SIGNS = b"(){}[],:'0123456789L\\-<|uifOUVMm\n"


def good(compressed: bool) -> bytes:
    images = np.random.default_rng(0).integers(0, 256, (8, *SPEC.pixel_shape), np.uint8)
    file, save = io.BytesIO(), np.savez_compressed if compressed else np.savez
    save(file, images=images, labels=np.array(list("aabbccab")))
    return file.getvalue()


def with_odd_headers(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change the arrays' own headers; the archive around them, with its checksums, is right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = bytearray(old.read(name))
            data[rng.integers(0, HEADER_BYTES)] = SIGNS[rng.integers(0, len(SIGNS))]
            new.writestr(name, bytes(data))
    return out.getvalue()


def check_read_or_refused(path: Path) -> int:
    """Read a file in all ways; return how many of them refuse it, in one line that names it."""
    out, messages = np.empty((8, *SPEC.shape), np.float32), list[str]()
    for read in (
        lambda: read_support(path, SPEC),
        lambda: read_query(path, SPEC),
        lambda: stream_samples(path, SPEC, ClassLabels(5)).fill(0, out),
    ):
        try:
            read()
        except SupportError as error:
            messages.append(str(error))
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)
    return len(messages)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing")
def test_changed_bytes_are_refused_in_one_line_or_change_nothing_that_is_read(
    compressed: bool, tmp_path: Path
) -> None:
    raw, rng, refused = good(compressed), np.random.default_rng(1), 0
    for _ in range(150):
        start, count = int(rng.integers(0, len(raw))), int(rng.integers(1, 80))
        blank, flipped = bytearray(raw), bytearray(raw)
        blank[start : start + count] = bytes(len(blank[start : start + count]))
        flipped[start] ^= int(rng.integers(1, 256))
        for content in (bytes(blank), bytes(flipped), raw[:start], with_odd_headers(raw, rng)):
            (tmp_path / "x.npz").write_bytes(content)
            refused += check_read_or_refused(tmp_path / "x.npz")
    assert refused > 600


def test_a_header_cut_off_inside_is_refused(tmp_path: Path) -> None:
    content = bytearray(good(False))
    end = content.index(b"}", content.index(b"descr"))
    content[end] = ord(" ")
    (tmp_path / "x.npz").write_bytes(content)
    assert check_read_or_refused(tmp_path / "x.npz") == 3


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    content = bytearray(good(False))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.npz").write_bytes(content)
    assert check_read_or_refused(tmp_path / "x.npz") == 3
