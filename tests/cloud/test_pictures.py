"""The pictures of a run are readable PNGs, and exact zeros do not look like small step sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from edge_adapt.cloud import TrainedRun
from edge_adapt.cloud.pictures import learning_curve, step_sizes
from PIL import Image

LAYERS = [f"layer{index}" for index in range(9)]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("name", ["learning_curve.png", "step_sizes.png"])
def test_a_run_draws_pictures_of_a_readable_size(name: str, finished: TrainedRun) -> None:
    height, width, _ = pixels(finished.path / name).shape
    assert 400 <= height <= 2000
    assert 400 <= width <= 2000


def test_exact_zeros_are_hatched_grey_on_white_and_small_values_coloured(tmp_path: Path) -> None:
    zeros, small = torch.zeros(5, 9), torch.full((5, 9), 1e-6)
    small[0, 0] = zeros[0, 0] = 0.1
    step_sizes(zeros, LAYERS, tmp_path / "zeros.png")
    step_sizes(small, LAYERS, tmp_path / "small.png")
    rows, columns = slice(200, 500), slice(200, 550)
    for name, coloured in (("zeros.png", False), ("small.png", True)):
        inside = pixels(tmp_path / name)[rows, columns]
        spread = inside.max(axis=2) - inside.min(axis=2)
        assert (spread.mean() > 20) == coloured
    hatched = pixels(tmp_path / "zeros.png")[rows, columns]
    assert len(np.unique(hatched)) > 2


def test_step_sizes_that_are_all_zero_can_be_drawn(tmp_path: Path) -> None:
    step_sizes(torch.zeros(1, 9), LAYERS, tmp_path / "zeros.png")
    assert pixels(tmp_path / "zeros.png").size > 0


def test_a_learning_curve_of_one_validation_with_nothing_kept_can_be_drawn(tmp_path: Path) -> None:
    row = {"step": 1, "accuracy": 0.5, "validation_accuracy": 0.4, "validation_ci95": 0.1,
           "zero_step_sizes": 0.0, "kept": 0}  # fmt: skip
    learning_curve([row], tmp_path / "curve.png")
    assert pixels(tmp_path / "curve.png").size > 0
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
