"""The picture of the arena."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge.errors import UsageError
from edge_adapt.edge.lower.choice import ACCUMULATE, CACHED_SUFFIX
from edge_adapt.edge.lower.table import TERMS
from edge_adapt.edge.plan import search_plan
from edge_adapt.edge.plan.picture import COLOURS, draw_arena

from .programs import Net, conv_program


def two_masks() -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    alpha = np.full((3, 5), 0.1)
    alpha[1, :2] = 0
    return alpha


@pytest.mark.parametrize(
    ("suffix", "schedule", "panels"),
    [("png", ACCUMULATE, 2), ("png", CACHED_SUFFIX, 3), ("svg", CACHED_SUFFIX, 3)],
)
def test_a_picture_is_written_whole_with_a_panel_per_step_program(
    tmp_path: Path, suffix: str, schedule: str, panels: int
) -> None:
    pytest.importorskip("matplotlib")
    program = conv_program(Net(rho=0.3))
    plan = search_plan(program, two_masks(), 10, 3, micro_batch=2, schedule=schedule)
    path = tmp_path / f"plan.{suffix}"
    draw_arena(plan, path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    if suffix == "png":
        width, height = (int.from_bytes(path.read_bytes()[at : at + 4], "big") for at in (16, 20))
        assert (width, height) == (9 * 150, round(panels * 3.2 * 150))
    else:
        text = path.read_text()
        assert all(colour.lower() in text for colour in COLOURS.values())


def test_every_term_has_a_colour_of_its_own() -> None:
    assert set(COLOURS) == set(TERMS)
    assert len(set(COLOURS.values())) == len(TERMS)


@pytest.mark.parametrize("name", ["plan.xyz", "plan"])
def test_an_unknown_suffix_is_refused_and_nothing_is_left(name: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plan = search_plan(conv_program(), two_masks(), 4, 1)
    with pytest.raises(UsageError, match=rf"{name}: "):
        draw_arena(plan, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = search_plan(conv_program(), two_masks(), 4, 1)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="pip install matplotlib"):
        draw_arena(plan, tmp_path / "plan.png")
