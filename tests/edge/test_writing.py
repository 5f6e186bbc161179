"""Places that cannot be written and disks that are full: one line, exit code 1, nothing left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from edge_adapt.edge.bundle.files import new_directory
from edge_adapt.edge.errors import EdgeAdaptError
from edge_adapt.edge.writing import writing

from .bundles import support_arrays, write_bundle, write_npz
from .commands import edge_adapt_here, error_line

FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, a support set, and a file where a folder is expected."""
    home = tmp_path_factory.mktemp("writing")
    write_bundle(home / "bundle")
    images, labels = support_arrays()
    write_npz(home / "support.npz", images=images, labels=labels)
    (home / "file").write_text("")
    return home


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_a_place_below_a_file_is_named_with_the_reason_and_nothing_is_left(verb: str, home: Path) -> None:
    before, target = sorted(home.iterdir()), home / "file" / "x.png"
    words: dict[str, tuple[object, ...]] = {
        "run": ("run", home / "bundle", "--support", home / "support.npz", "-o", target),
        "plan": ("plan", home / "bundle", "--plot", target),
    }
    message = error_line(edge_adapt_here(*words[verb], code=1))
    assert message.startswith(f"{target}: cannot be written (")
    assert message.endswith("); name a place where files can be written")
    assert sorted(home.iterdir()) == before


def test_a_run_finds_out_before_it_adapts(home: Path) -> None:
    words = ("run", home / "bundle", "--support", home / "nowhere", "-o", home / "file" / "x")
    assert "cannot be written" in error_line(edge_adapt_here(*words, code=1))


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_a_full_disk_is_said_with_what_is_needed_and_what_is_free(tmp_path: Path) -> None:
    with (
        pytest.raises(
            EdgeAdaptError, match=r"model: cannot be written, the disk is full; it takes 1234567 bytes"
        ) as error,
        writing(tmp_path / "model", 1234567),
        FULL.open("wb", buffering=0) as file,
    ):
        file.write(b"x")
    assert "(1.23 MB), " in str(error.value)
    assert str(error.value).endswith(" are free; make room, or name a place on another disk")


def test_a_new_directory_below_a_file_is_named_not_its_temporary_sibling(home: Path) -> None:
    target = home / "file" / "merged"
    with (
        pytest.raises(
            EdgeAdaptError, match=r"file/merged: cannot be written \((File exists|Not a directory)\)"
        ),
        new_directory(target),
    ):
        pytest.fail("there is no directory")


def test_what_cannot_be_read_elsewhere_is_not_blamed_on_the_target(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError), writing(tmp_path / "a" / "model"):
        (tmp_path / "b" / "source").read_bytes()


def test_a_disk_that_is_full_while_copying_is_blamed_on_the_target(tmp_path: Path) -> None:
    source = tmp_path / "a" / "source"
    with (
        pytest.raises(EdgeAdaptError, match="model: cannot be written, the disk is full"),
        writing(tmp_path / "b" / "model"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))  # as shutil.copyfile does
