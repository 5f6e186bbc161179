"""Files that are complete or not there at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_adapt.cloud.files import replace_bytes, replace_text, replacing


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
