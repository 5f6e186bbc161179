"""Unusual archives and folders: read as numpy.load would, or refused in one line, by streams and whole."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge.errors import SupportError
from edge_adapt.edge.inputs import ArraySpec, ClassLabels, read_support, stream_samples
from edge_adapt.edge.inputs.folders import class_groups
from edge_adapt.edge.inputs.held import Held

SPEC = ArraySpec((3,))
IMAGES = np.arange(12, dtype=np.float32).reshape(4, 3)
Read = Callable[[Path], object]
READERS: list[Read] = [
    lambda path: read_support(path, SPEC),
    lambda path: stream_samples(path, SPEC, ClassLabels(5)),
]


def packed(path: Path, method: int, suffix: str = ".npy") -> Path:
    """An .npz packed in one way, its members named with this suffix."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, value in {"images": IMAGES, "labels": np.array([0, 1, 0, 1])}.items():
            data = io.BytesIO()
            np.save(data, value)
            archive.writestr(name + suffix, data.getvalue())
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("read", READERS, ids=["whole", "streamed"])
def test_packing_that_unpacks_megabytes_at_once_is_refused(read: Read, method: int, tmp_path: Path) -> None:
    with pytest.raises(SupportError, match=r"images\.npy is packed .* use numpy\.savez_compressed"):
        read(packed(tmp_path / "s.npz", method))


@pytest.mark.parametrize("suffix", ["", ".npy"])
def test_members_may_lack_the_suffix(suffix: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "s.npz", zipfile.ZIP_DEFLATED, suffix)
    streamed, out = stream_samples(path, SPEC, ClassLabels(5)), np.empty((4, 3), np.float32)
    streamed.fill(0, out)
    assert np.array_equal(out, IMAGES)
    assert np.array_equal(streamed.labels, [0, 1, 0, 1])
    assert np.array_equal(read_support(path, SPEC).images, IMAGES)


def groups(home: Path) -> dict[str, list[str]]:
    return dict(class_groups(home, Held(str(home), 10**6)))


def test_a_link_that_leads_to_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").symlink_to("x.png")
    with pytest.raises(SupportError, match=r"x\.png: (cannot be read|neither a file nor a folder)"):
        groups(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "x.png")
    with pytest.raises(SupportError, match=r"x\.png: neither a file nor a folder; remove it"):
        groups(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_name_that_no_report_can_hold_is_refused(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(SupportError, match="its name is not UTF-8; rename it"):
        groups(tmp_path)
