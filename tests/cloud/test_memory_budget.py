"""A memory budget chooses how much of a task is differentiated at once; what was chosen is measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edge_adapt.cloud import ConfigError, train
from edge_adapt.cloud.config import RunConfig
from edge_adapt.cloud.lite import LiteConfig
from edge_adapt.cloud.memory.budget import SHARE, fit_into, probe_steps
from edge_adapt.cloud.memory.peak import peak_bytes, reset_peak
from edge_adapt.cloud.run.directory import read_config
from PIL import Image

BASE, PER_SAMPLE = 300e6, 20e6
RECIPE = """
summary = "test: prototypes of noise"
backbone = "conv4"
[data]
name = "folder"
channels = 3
size = 96
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[task]
ways = 2
shots = 15
queries = 5
[method]
name = "protonets"
[train]
outer_steps = 2
tasks_per_step = 1
validate_every = 2
validation_tasks = 2
test_tasks = 2
"""


def config_of(**lite: int) -> RunConfig:
    table: dict[str, Any] = {
        "data": {"name": "miniimagenet"},
        "task": {"ways": 5, "shots": 20, "queries": 12},
        "method": {"name": "protonets"},
        "lite": lite,
    }
    return RunConfig.from_table(table)


class Machine:
    """A made-up one, whose memory grows with the samples that have a graph, by another amount on whole tasks."""

    def __init__(self, whole: float = 1.0, curved: float = 0.0) -> None:
        self.whole, self.curved, self.asked = whole, curved, 0

    def __call__(self, config: RunConfig, settings: Sequence[LiteConfig], whole: bool) -> list[float]:
        self.asked += 1
        return [self.peak(lite, whole) for lite in settings]

    def peak(self, lite: LiteConfig, whole: bool = True) -> float:
        count = (lite.h or 100) + (lite.query_batch or 60)
        grown = PER_SAMPLE * count * (1 + self.curved * count)
        return (BASE + grown) * (self.whole if whole else 1.0)


@pytest.mark.parametrize("budget", [0.4e9, 1e9, 2e9])
@pytest.mark.parametrize("machine", [Machine(), Machine(whole=1.1), Machine(whole=0.9), Machine(curved=0.01)])
def test_what_is_chosen_fits_and_uses_most_of_the_budget_after_a_few_probes(
    budget: float, machine: Machine
) -> None:
    machine.asked = 0
    fit = fit_into(config_of(), int(budget), machine)
    assert fit.peak_bytes == int(machine.peak(fit.lite)) <= SHARE * budget
    more = LiteConfig(h=(fit.lite.h or 99) + 2, query_batch=(fit.lite.query_batch or 59) + 2)
    assert machine.peak(more) > 0.9 * SHARE * budget
    assert machine.asked <= 5


def test_everything_is_taken_where_everything_fits_and_what_the_recipe_says_is_not_exceeded() -> None:
    assert fit_into(config_of(), 10**11, Machine()).lite == LiteConfig(chunk=40)
    assert fit_into(config_of(h=40, query_batch=20), 10**11, Machine()).lite == LiteConfig(
        h=40, query_batch=20, chunk=40
    )
    small = fit_into(config_of(h=40, query_batch=20, chunk=3), int(0.5e9), Machine()).lite
    assert small.h == small.query_batch == 4
    assert small.chunk == 3


def test_the_line_says_what_was_chosen_and_measured() -> None:
    text = fit_into(config_of(), 10**9, Machine()).text
    assert text == (
        "memory budget 1 GB: lite.h = 16, lite.query_batch = 16, lite.chunk = 40; a first step took 940 MB"
    )
    assert "lite.h = none (all)" in fit_into(config_of(), 10**11, Machine()).text


def test_a_budget_that_is_too_small_is_refused_and_the_one_that_is_named_does() -> None:
    with pytest.raises(
        ConfigError, match=r"memory budget 300 MB: even lite\.h = 1 does not fit, .*"
    ) as caught:
        fit_into(config_of(), int(300e6), Machine())
    assert "a first step took 340 MB; the smallest budget that would do is 366 MB" in str(caught.value)
    assert fit_into(config_of(), int(366e6), Machine()).lite.h == 1
    with pytest.raises(ConfigError, match="nor into this machine's memory"):
        fit_into(config_of(), 10**9, lambda config, settings, whole: [float("inf")] * len(settings))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three splits of two classes of twenty images, and a recipe."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind in "ab":
            (root / "data" / split / kind).mkdir(parents=True)
            for sample in range(20):
                pixels = rng.integers(0, 256, (96, 96, 3), np.uint8)
                Image.fromarray(pixels).save(root / "data" / split / kind / f"{sample}.jpg")
    (root / "noise.toml").write_text(RECIPE)
    return root


def test_a_run_stays_within_its_budget_and_resumes_with_what_was_chosen(
    noise: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe, data = str(noise / "noise.toml"), str(noise / "data")
    config = RunConfig.from_table(
        {"data": {"name": "folder", "channels": 3, "size": 96, "mean": [0.5] * 3, "std": [0.25] * 3, "root": data},
         "task": {"ways": 2, "shots": 15, "queries": 5}, "method": {"name": "protonets"}}
    )  # fmt: skip
    small, large = probe_steps(config, [LiteConfig(1, query_batch=1, chunk=4), LiteConfig(chunk=40)], False)
    assert large - small > 30e6
    budget = int((small + (large - small) / 3) / SHARE)
    train(recipe, tmp_path / "run", data=data, memory_budget=budget, progress=True)
    chosen = read_config(tmp_path / "run").lite
    assert chosen.h is not None
    assert 1 < chosen.h < 30
    said = re.search(r"lite\.h = (\d+), .* a first step took", capfd.readouterr().err)
    assert said is not None
    assert int(said[1]) == chosen.h
    (tmp_path / "run" / "result.json").unlink()
    train(recipe, tmp_path / "run", data=data, memory_budget=budget, resume=True)
    assert read_config(tmp_path / "run").lite == chosen
    with pytest.raises(ConfigError, match="cannot be resumed: lite"):
        train(recipe, tmp_path / "run", data=data, resume=True)


def test_a_run_that_is_refused_anyway_says_why(noise: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"memory budget: size 'two' is not understood"):
        train(str(noise / "noise.toml"), tmp_path / "run", data=str(noise / "data"), memory_budget="two")
    changes = {"architecture.norm": "batch"}
    with pytest.raises(ConfigError, match=r"is a BatchNorm, whose statistics stay frozen"):
        train(
            str(noise / "noise.toml"),
            tmp_path / "run",
            changes,
            data=str(noise / "data"),
            memory_budget="1GB",
        )
    assert not (tmp_path / "run").exists()


def test_the_peak_counts_anew_and_sees_what_was_freed_again() -> None:
    device, size = torch.device("cpu"), 200 * 2**20
    reset_peak(device)
    before = peak_bytes(device)
    bytearray(size)[::4096] = b"1" * (size // 4096)
    assert 0.95 * size < peak_bytes(device) - before < 1.2 * size
    reset_peak(device)
    assert peak_bytes(device) - before < size / 2
