"""Budgets of bundles that adapt by forward passes: `plan` counts reading as `run` does, and who is at fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge.inputs import InputSpec
from PIL import Image

from ..edge.commands import edge_adapt_here, edge_adapt_json, error_line
from ..export.learners import learner, write

SPEC = InputSpec(3, 20, 20, (0.5,) * 3, (0.3,) * 3)
COUNT = 8


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, eight images of the network's size as a folder and as an .npz, and eight that are larger."""
    home = tmp_path_factory.mktemp("budgets")
    write(home / "bundle", "cnaps", learner("cnaps", widths=(4, 6), colours=3), SPEC, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, *SPEC.pixel_shape), np.uint8)
    np.savez(home / "arrays.npz", images=pixels, labels=np.arange(COUNT) % 2)
    for number, image in enumerate(pixels):
        for name, size in (("small", (20, 20)), ("photos", (600, 500))):
            place = home / name / f"class{number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize(size).save(place / f"{number}.png")
    return home


def smallest(*words: object) -> int:
    """The budget that a refusal names."""
    message = error_line(edge_adapt_here(*words, "--memory-budget", "1kB", code=3))
    return int(message.split("the smallest feasible is ")[1].split()[0])


@pytest.mark.parametrize("support", ["arrays.npz", "small"])
def test_a_budget_that_plan_accepts_is_enough_for_samples_of_the_networks_size(
    support: str, home: Path, tmp_path: Path
) -> None:
    budget = smallest("plan", home / "bundle", "--samples", COUNT)
    words = ("run", home / "bundle", "--support", home / support, "-o", tmp_path / "adapted")
    assert edge_adapt_json(*words, "--memory-budget", budget)["planned_peak_bytes"] <= budget


@pytest.mark.parametrize("support", ["arrays.npz", "small", "photos"])
def test_a_plan_for_a_support_set_is_the_one_that_runs(support: str, home: Path, tmp_path: Path) -> None:
    given = ("--support", home / support)
    run = ("run", home / "bundle", *given, "-o", tmp_path / "adapted")
    budget = smallest("plan", home / "bundle", *given)
    assert smallest(*run) == budget
    plan = edge_adapt_json("plan", home / "bundle", *given, "--memory-budget", budget)
    report = edge_adapt_json(*run, "--memory-budget", budget)
    for key in ("planned_peak_bytes", "terms", "micro_batch", "tiling", "samples"):
        assert report[key] == plan[key]
    edge_adapt_here("plan", home / "bundle", *given, "--memory-budget", budget - 1, code=3)
    edge_adapt_here(*run, "--memory-budget", budget - 1, code=3)


def test_one_image_out_of_line_is_named_with_the_budget_it_needs(home: Path, tmp_path: Path) -> None:
    for file in (home / "small").rglob("*.png"):
        (tmp_path / "s" / file.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / file.parent.name / file.name).write_bytes(file.read_bytes())
    Image.new("RGB", (2000, 1500)).save(tmp_path / "s" / "class0" / "huge.png")
    words = ("run", home / "bundle", "--support", tmp_path / "s", "-o", tmp_path / "adapted")
    message = error_line(edge_adapt_here(*words, "--memory-budget", "900kB", code=5))
    assert "huge.png: decoding it takes" in message
    budget = int(message.split("raise the budget to ")[1].split()[0])
    assert edge_adapt_json(*words, "--memory-budget", budget)["planned_peak_bytes"] <= budget


def test_a_sweep_has_no_support_set(home: Path) -> None:
    words = ("plan", home / "bundle", "--support", home / "small", "--sweep")
    assert "--sweep" in error_line(edge_adapt_here(*words, code=2))
