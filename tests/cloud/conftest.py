"""A small folder of images that can be learned, and one finished tiny run on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edge_adapt.cloud import TrainedRun, train
from edge_adapt.cloud.outer import METHODS
from PIL import Image

RECIPE = """
summary = "test: 3-way 2-shot on stripes"
[data]
name = "folder"
channels = 1
size = 16
mean = [0.5]
std = [0.25]
[task]
ways = 3
shots = 2
queries = 2
[method]
name = "p-meta"
inner_steps = 2
penalty = "activations"
penalty_strength = 0.3
warmup_fraction = 0.0
alpha_rate = 0.5
[train]
outer_steps = 6
tasks_per_step = 2
validate_every = 2
validation_tasks = 6
test_tasks = 6
"""


def plain(method: str) -> dict[str, Any]:
    """Overrides of the recipe for a method without attention and penalty."""
    changes = {"method.name": method, "method.attention": False, "method.penalty": "none"}
    return changes if "alpha_rate" in METHODS[method].uses else {**changes, "method.alpha_rate": 0.01}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Runs repeat bit for bit with one thread; with several, sums are rounded in another order each time."""
    torch.set_num_threads(1)


def _stripes(generator: np.random.Generator, kind: int) -> Image.Image:
    """16 x 16 stripes whose direction and width make the class, with noise."""
    rows, columns = np.mgrid[:16, :16]
    angle = np.pi * kind / 5
    wave = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) * (0.7 + 0.15 * kind))
    return Image.fromarray(np.uint8(np.clip(128 + 90 * wave + generator.normal(0, 20, (16, 16)), 0, 255)))


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/, val/ and test/ with three or more classes of five images."""
    root, generator = tmp_path_factory.mktemp("stripes"), np.random.default_rng(0)
    for split, kinds in {"train": range(5), "val": range(5, 8), "test": range(8, 12)}.items():
        for kind in kinds:
            folder = root / split / f"kind{kind:02}"
            folder.mkdir(parents=True)
            for sample in range(5):
                _stripes(generator, kind).save(folder / f"{sample}.png")
    return root


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe file of a few outer steps."""
    path = tmp_path_factory.mktemp("recipe") / "stripes.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="session")
def run_tiny(stripes: Path, recipe: Path) -> Callable[..., TrainedRun]:
    """Train the tiny recipe: run_tiny(out, {"train.outer_steps": 3})."""

    def run(out: Path, overrides: dict[str, Any] | None = None, **options: Any) -> TrainedRun:
        return train(str(recipe), out, overrides, data=stripes, **options)

    return run


@pytest.fixture(scope="session")
def finished(run_tiny: Callable[..., TrainedRun], tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished run; tests must not write into it."""
    return run_tiny(tmp_path_factory.mktemp("finished") / "run")
