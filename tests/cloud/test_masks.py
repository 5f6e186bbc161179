"""The committed step sizes of benchmarks/masks: they fit the networks they name and say where they come from."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from edge_adapt.cloud.config import RunConfig
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.models import build_backbone

FOLDER = Path(__file__).parents[2] / "benchmarks" / "masks"
NAMES = ("conv4-miniimagenet-5shot", "resnet12-miniimagenet-5shot")
KEYS = {
    "recipe", "method", "first_order", "seed", "outer_steps", "kept_step", "minutes", "initial_weights", "test",
    "validation", "zero_step_sizes", "versions", "machine", "settings",
}  # fmt: skip

Masks = dict[str, Any]


@pytest.fixture(params=NAMES)
def masks(request: pytest.FixtureRequest) -> Masks:
    content: Masks = json.loads((FOLDER / f"{request.param}.json").read_text(encoding="utf-8"))
    return content


def test_every_committed_file_is_one_that_is_checked_here() -> None:
    assert sorted(file.stem for file in FOLDER.glob("*.json")) == sorted(NAMES)


def test_the_layers_are_the_networks_own_in_program_order(masks: Masks) -> None:
    model = masks["model"]
    shape = (model["channels"], model["height"], model["width"])
    assert (shape, model["classes"], model["samples"]) == ((3, 84, 84), 5, 25)
    network = Network(build_backbone(model["backbone"], shape, model["classes"], seed=0), shape)
    assert masks["layers"] == [layer.name for layer in network.layers]


def test_the_table_has_a_row_for_every_step_and_exact_zeros_but_a_head_that_learns(masks: Masks) -> None:
    alpha = masks["alpha"]
    assert [len(step) for step in alpha] == [len(masks["layers"])] * masks["provenance"]["settings"][
        "method"
    ]["inner_steps"]
    sizes = [size for step in alpha for size in step]
    assert all(math.isfinite(size) and size >= 0 for size in sizes)
    assert sizes.count(0.0) / len(sizes) == pytest.approx(masks["provenance"]["zero_step_sizes"])
    assert any(all(size == 0 for size in layer) for layer in zip(*alpha, strict=True))
    assert any(step[-1] > 0 for step in alpha)


def test_provenance_says_how_the_numbers_were_made(masks: Masks) -> None:
    runs = [masks["provenance"]] + ([masks["baseline"]] if masks["baseline"] else [])
    for run in runs:
        assert set(run) == KEYS
        config = RunConfig.from_table(run["settings"])
        assert (config.recipe, config.seed, config.method.name) == (run["recipe"], run["seed"], run["method"])
        assert config.method.first_order == run["first_order"]
        assert config.train.outer_steps == run["outer_steps"] >= run["kept_step"] > 0
        assert 1 / masks["model"]["classes"] < run["test"]["accuracy"] < 1
        assert run["test"]["tasks"] >= 40
        assert "/" not in run["settings"]["train"]["initial_weights"]


def test_the_sparse_4conv_is_no_less_accurate_than_the_dense_one() -> None:
    content = json.loads((FOLDER / f"{NAMES[0]}.json").read_text(encoding="utf-8"))
    sparse, dense = content["provenance"], content["baseline"]
    assert dense["zero_step_sizes"] == 0
    assert dense["initial_weights"] == sparse["initial_weights"]
    interval = math.hypot(sparse["test"]["ci95"], dense["test"]["ci95"])
    assert sparse["test"]["accuracy"] > dense["test"]["accuracy"] - interval
