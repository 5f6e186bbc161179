"""A memory budget chooses how much of a task is differentiated at once; what was chosen is measured."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edge_adapt.cloud import ConfigError, train
from edge_adapt.cloud.config import DataConfig, RunConfig
from edge_adapt.cloud.lite import LiteConfig
from edge_adapt.cloud.memory.budget import SHARE, fit_into, probe_steps
from edge_adapt.cloud.memory.peak import peak_bytes, reset_peak
from edge_adapt.cloud.run.directory import read_config
from edge_adapt.cloud.settings.tables import write_toml
from edge_adapt.cloud.settings.typed import to_table
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


def config_of(**lite: int | bool) -> RunConfig:
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


@pytest.mark.parametrize("budget", [0.42e9, 1e9, 2e9])
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
        "memory budget 1 GB: lite.h = 15, lite.query_batch = 15, lite.chunk = 40; a first step took 900 MB"
    )
    assert "lite.h = none (all)" in fit_into(config_of(), 10**11, Machine()).text


def test_a_budget_that_is_too_small_is_refused_and_the_one_that_is_named_does() -> None:
    with pytest.raises(
        ConfigError, match=r"memory budget 300 MB: even lite\.h = 1 does not fit, .*"
    ) as caught:
        fit_into(config_of(), int(300e6), Machine())
    assert "a first step took 340 MB; the smallest budget that would do is 377 MB" in str(caught.value)
    assert fit_into(config_of(), int(377e6), Machine()).lite.h == 1
    with pytest.raises(ConfigError, match="nor into this machine's memory"):
        fit_into(config_of(), 10**9, lambda config, settings, whole: [float("inf")] * len(settings))


class Curved:
    """A made-up machine whose memory grows faster than the pieces, and by any amount more on whole tasks."""

    def __init__(self, base: float, slope: float, whole: float, curved: float) -> None:
        self.base, self.slope, self.whole, self.curved, self.asked = base, slope, whole, curved, 0

    def __call__(self, config: RunConfig, settings: Sequence[LiteConfig], whole: bool) -> list[float]:
        self.asked += 1
        return [self.peak(max(lite.h or 100, lite.query_batch or 60), whole) for lite in settings]

    def peak(self, piece: int, whole: bool = True) -> float:
        return 1e6 * (self.base + self.slope * piece * (1 + self.curved * piece) + self.whole * whole)


def test_a_budget_that_one_sample_at_a_time_fits_into_is_never_refused() -> None:
    drawn = np.random.default_rng(0)
    for _ in range(300):
        machine = Curved(*drawn.uniform((1, 0.1, 0, 0), (300, 30, 200, 0.03)))
        allowed = machine.peak(int(drawn.integers(1, 100))) + 1
        fit = fit_into(config_of(), math.ceil(allowed / SHARE), machine)
        assert fit.peak_bytes <= allowed + 1
        assert machine.asked <= 12


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


STEPS: dict[str, Any] = {
    "summary": "test: inner steps",
    "data": {"name": "glyphs"},
    "architecture": {"norm": "group"},
    "task": {"ways": 10, "shots": 5, "queries": 5},
    "method": {"name": "maml", "inner_steps": 1, "attention": False, "tasks_per_chunk": 1},
    "train": {"outer_steps": 1, "tasks_per_step": 3, "validation_tasks": 16, "test_tasks": 16},
    "lite": {"h": 1, "query_batch": 1, "chunk": 4},
}
RUN = """
import sys
import torch
from edge_adapt.cloud import train
from edge_adapt.cloud.memory.allocator import keep_freed_memory
from edge_adapt.cloud.memory.peak import peak_bytes
keep_freed_memory()
torch.set_num_threads(int(sys.argv[3]))
train(sys.argv[1], sys.argv[2])
print(peak_bytes(torch.device("cpu")))
"""


def test_a_run_of_inner_steps_takes_no_more_than_its_probe(tmp_path: Path) -> None:
    """What takes most there is the evaluation of several tasks at once; equal processes differed by up to 7 %."""
    config = RunConfig.from_table(STEPS)
    (probed,) = probe_steps(config, [config.lite], True)
    recipe = tmp_path / "steps.toml"
    recipe.write_text(write_toml(STEPS))
    command = [sys.executable, "-c", RUN, str(recipe), str(tmp_path / "run"), str(torch.get_num_threads())]
    taken = float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert taken <= 1.15 * probed


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "a first step fails: its process was ended by SIGSEGV$"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "nor into this machine's memory"),
    ],
)
def test_a_probe_that_dies_gives_one_clear_line(
    end: str, said: str, noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"dies{abs(hash(end))}"
    (tmp_path / f"{name}.py").write_text(f"import os, signal\n{end}\n")
    monkeypatch.chdir(tmp_path)
    config = replace(config_of(), backbone=f"{name}:Net", backbone_root=str(tmp_path))
    with pytest.raises(ConfigError, match=said) as caught:
        fit_into(replace(config, data=DataConfig("glyphs")), 10**9)
    assert "\n" not in str(caught.value)


def test_what_needs_h_is_checked_after_the_budget_has_chosen_it() -> None:
    table = to_table(config_of(stratified=True))
    fit = fit_into(RunConfig.from_table(table), 10**9, Machine())
    assert fit.lite.stratified
    assert fit.lite.h is not None


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
