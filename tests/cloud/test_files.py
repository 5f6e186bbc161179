"""Files that are complete or not there at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from edge_adapt.cloud.files import PARTIAL, CannotWrite, replace_bytes, replace_text, replacing
from edge_adapt.cloud.run.state import write_checkpoint

FULL = Path("/dev/full")


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    replace_text(tmp_path / "a", "older and longer")
    replace_text(tmp_path / "a", "±\n")
    assert (tmp_path / "a").read_bytes() == b"\xc2\xb1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    """A directory of this name cannot be replaced by a file."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")
    with pytest.raises(OSError, match="directory"):
        replace_bytes(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "old").read_text() == "old"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_a_write_that_is_stopped_leaves_the_old_file_and_nothing_beside_it(
    stop: type[BaseException], tmp_path: Path
) -> None:
    replace_text(tmp_path / "a", "old")
    with pytest.raises(stop), replacing(tmp_path / "a") as partial:  # noqa: PT012
        partial.write_text("ne")
        raise stop
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_line_that_names_the_file_and_says_what_to_do(tmp_path: Path) -> None:
    """The temporary sibling is a device that is always full."""
    path = tmp_path / "checkpoint.pt"
    replace_text(path, "old")
    for write in (
        lambda: write_checkpoint(path, {"weights": torch.zeros(100_000)}),
        lambda: replace_bytes(path, bytes(100_000)),
    ):
        path.with_name(path.name + PARTIAL).symlink_to(FULL)
        with pytest.raises(
            CannotWrite, match=r"checkpoint\.pt cannot be written: the disk is full, .* are free; make room"
        ):
            write()
        assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]
        assert path.read_text() == "old"


def test_a_place_without_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"none/a cannot be written \(No such file or directory\); choose"):
        replace_text(tmp_path / "none" / "a", "text")
