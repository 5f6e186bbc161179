"""Every method through the same loop: running, resuming, diverging, refusing what it does not use."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edge_adapt.cloud import ConfigError, TrainedRun, evaluate, train
from edge_adapt.cloud.config import RunConfig
from edge_adapt.cloud.outer import METHODS
from edge_adapt.cloud.parts.assemble import assemble, fixed_sampler, load_split, training_sampler
from edge_adapt.cloud.recipes import read_recipe
from edge_adapt.cloud.run.directory import RunDirectory
from edge_adapt.cloud.run.loop import Job, TrainingError, begin, run
from edge_adapt.cloud.run.progress import Progress
from edge_adapt.cloud.run.state import State, load_checkpoint

from .conftest import plain

Train = Callable[..., TrainedRun]
SHORT = {
    "train.outer_steps": 3,
    "train.validate_every": 1,
    "train.validation_tasks": 2,
    "train.test_tasks": 2,
}
PLAIN = sorted(METHODS.keys() - {"p-meta"})
UNSOLVED = pytest.mark.filterwarnings("ignore:.*the inner problem is not solved")
"""Two inner steps solve none; a test of its own says that there is a warning."""
ADAPTED = {"anil": 1, "boil": 8, "mrml": 1}
"""Layers that adapt, where not all nine do."""


class Stops(Progress):
    """A person who presses Ctrl-C after two outer steps."""

    def step(self, state: State) -> None:
        if state.step == 2:
            raise KeyboardInterrupt


def interrupted(recipe: Path, stripes: Path, out: Path, overrides: dict[str, Any]) -> Job:
    """Leave a run directory as Ctrl-C after two steps does."""
    config = RunConfig.from_table(read_recipe(str(recipe)), {"data.root": str(stripes), **overrides})
    training = training_sampler(config)
    validation = fixed_sampler(load_split(config.data, "val"), config.task)
    job = Job(assemble(config, training.dataset.spec), training, validation, RunDirectory(out))
    with pytest.raises(KeyboardInterrupt):
        run(job, begin(job), Stops(total=3, start=0, shown=False))
    return job


def test_a_lower_level_that_diverges_stops_training(run_tiny: Train, tmp_path: Path) -> None:
    """Its loss and gradient are finite for a while."""
    overrides = {**SHORT, **plain("mrml"), "method.mu": 1e6, "method.inner_steps": 6}
    with pytest.raises(
        TrainingError, match=r"^lower_residual is not a number at outer step 1; .*inner_step_size"
    ):
        run_tiny(tmp_path / "run", overrides)
    assert not (tmp_path / "run" / "result.json").exists()


@UNSOLVED
@pytest.mark.parametrize("method", PLAIN)
def test_a_run_ends_resumes_to_the_same_bits_and_is_scored_as_the_device_adapts(
    method: str, run_tiny: Train, recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    overrides = {**SHORT, **plain(method)}
    whole = run_tiny(tmp_path / "whole", overrides)
    job = interrupted(recipe, stripes, tmp_path / "run", overrides)
    state = job.directory.resume(job.config)
    assert state.step == 2
    best = run(job, state, Progress(total=3, start=2, shown=False)).best
    assert best is not None
    assert (best.step, best.score) == (whole.result["step"], whole.result["validation"]["accuracy"])
    assert all(torch.equal(best.meta.learned[name], value) for name, value in whole.meta.learned.items())
    assert torch.equal(best.meta.alpha, whole.alpha)
    assert (whole.rho, whole.attention, whole.caps) == (None, {}, (None,) * 9)
    active = int((whole.alpha != 0).any(0).sum())
    assert active == whole.result["active_layers"] == ADAPTED.get(method, 9)
    assert evaluate(whole, tasks=2).accuracy == whole.result["test"]["accuracy"]


@pytest.mark.parametrize("method", ["imaml", "mrml"])
def test_implicit_methods_write_their_residuals_into_the_metrics(
    method: str, run_tiny: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two inner steps solve nothing, so there is a warning, too."""
    run = run_tiny(tmp_path / "run", {**SHORT, **plain(method), "train.outer_steps": 1}, progress=True)
    assert "warning: step 1: the inner problem is not solved (lower_residual " in capsys.readouterr().err
    with (tmp_path / "run" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert 0 < float(row["lower_residual"]) <= 1
    assert float(row["cg_residual"]) > 0
    assert run.result["lower_residual"] == float(row["lower_residual"])


@pytest.mark.parametrize("method", PLAIN)
def test_a_loss_that_is_no_number_stops_every_method_with_the_last_good_state_kept(
    method: str, run_tiny: Train, tmp_path: Path
) -> None:
    broken = {"train.learning_rate": 1e30, "train.validate_every": 100, "train.outer_steps": 3}
    with pytest.raises(TrainingError, match=r"not a number at outer step 2; .*checkpoint.pt keeps"):
        run_tiny(tmp_path / "run", {**SHORT, **plain(method), **broken})
    state, _ = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert all(bool(value.isfinite().all()) for value in state.meta.learned.values())
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    ("method", "setting", "value", "message"),
    [
        ("reptile", "penalty", "peak", r'penalty: "peak" would have no effect, reptile does not use it'),
        ("maml", "penalty", "activations", r"penalty: .* maml does not use it; leave it at .none."),
        ("anil", "alpha_rate", 0.5, r"alpha_rate: 0\.5 would have no effect, anil does not use it"),
        ("leap", "first_order", True, r"first_order: true would have no effect, leap"),
        ("fomaml", "multi_step_until", 0.5, r"multi_step_until: 0\.5 would have no effect, fomaml "),
        ("fomaml++", "checkpoint_steps", True, r"checkpoint_steps: true would have no effect"),
        ("maml", "mu", 0.1, r"mu: 0\.1 would have no effect, maml"),
        ("mrml", "prox", 2.0, r"prox: 2\.0 would have no effect, mrml"),
        ("imaml", "task_layers", ["fc"], r"task_layers: \[.fc.\] would have no effect, imaml"),
        ("maml", "film", False, r"film: false would have no effect, maml"),
        ("p-meta", "covariance", "identity", r"covariance: .identity. would have no effect, p-meta"),
        ("reptile", "film_penalty", 0.1, r"film_penalty: 0\.1 would have no effect, reptile"),
        ("boil", "cg_steps", 7, r"cg_steps: 7 would have no effect, boil"),
        ("mrml", "task_layers", ["head"], r"method\.task_layers: no layer is called 'head'; there are conv1"),
        ("mrml", "task_layers", ["fc", "fc"], r"method\.task_layers must be names without repetition"),
        ("mrml", "mu", 0.0, r"method\.mu must be above 0, got 0\.0"),
        ("imaml", "prox", -1.0, r"method\.prox must be above 0, got -1\.0"),
        ("imaml", "cg_steps", 0, r"method\.cg_steps must be at least 1, got 0"),
        ("imaml", "cg_damping", -0.5, r"method\.cg_damping must be at least 0"),
        ("reptile", "inner_step_size", -0.1, r"method\.inner_step_size must be above 0, got -0\.1"),
        ("leap", "inner_steps", 0, r"method\.inner_steps must be at least 1, got 0"),
        ("fomaml", "attention", True, r"method\.attention: fomaml fixes it to false"),
        ("imaml", "rho_fw", 0.5, r"rho_fw: 0\.5 .* needs attention = true"),
    ],
)
def test_a_setting_that_is_wrong_or_that_the_method_does_not_use_is_refused_before_training(
    method: str, setting: str, value: object, message: str, recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    overrides = {**plain(method), f"method.{setting}": value}
    with pytest.raises(ConfigError, match=message):
        train(str(recipe), tmp_path / "run", overrides, data=stripes)
    assert not (tmp_path / "run").exists()


@UNSOLVED
def test_learned_weights_of_named_task_layers_move_and_a_head_of_zeros_does_not(
    run_tiny: Train, tmp_path: Path
) -> None:
    head = run_tiny(tmp_path / "head", {**SHORT, **plain("mrml")})
    assert not head.meta.learned["fc.weight"].any()
    named = run_tiny(tmp_path / "named", {**SHORT, **plain("mrml"), "method.task_layers": ["conv4", "fc"]})
    assert torch.equal(
        named.alpha[0] != 0, torch.tensor([layer.name in ("conv4", "fc") for layer in named.layers])
    )
    start = named.parts.network.weights()
    assert all(
        not torch.equal(value, start[name]) for name, value in named.meta.learned.items() if name in start
    )
