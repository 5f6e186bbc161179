"""Regression in meta-training: it learns to learn, and everything says mean squared error, where less is better."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from edge_adapt.cloud import ConfigError, TrainedRun, evaluate, load_run, train
from edge_adapt.cloud.cli import main
from edge_adapt.cloud.inner.base import Batch, Meta, MethodConfig
from edge_adapt.cloud.inner.device import adapt
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.losses import CROSS_ENTROPY, SQUARED_ERROR
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.outer import METHODS
from edge_adapt.cloud.parts.assemble import draw, draw_all, fixed_sampler, load_split, training_sampler
from edge_adapt.cloud.parts.score import Score, measure, score_before
from torch import nn
from torch.nn import functional as F

RECIPE, STEPS = "maml-mlp-sinusoid-10shot", 200
QUICK = {
    "train.outer_steps": STEPS,
    "train.tasks_per_step": 10,
    "train.learning_rate": 1e-2,
    "train.validate_every": 50,
    "train.validation_tasks": 20,
    "train.test_tasks": 100,
    "method.inner_steps": 3,
    "method.first_order_until": 0.0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Sinusoids, a few seconds of meta-training; tests must not write into it."""
    return train(RECIPE, tmp_path_factory.mktemp("sinusoid") / "run", QUICK)


def score_of(run: TrainedRun, module: nn.Module) -> Score:
    """The run's test tasks, adapted with its step sizes from other weights."""
    weights = {name: value.detach() for name, value in module.named_parameters()}
    meta = Meta(weights, {"alpha": run.alpha})
    tasks = draw_all(fixed_sampler(load_split(run.config.data, "test"), run.config.task), run.test.tasks)
    return measure(run.parts.network, run.parts.method.config, meta, tasks)


def jointly_trained(run: TrainedRun) -> nn.Module:
    """The same network, trained with Adam on the samples of the same tasks, all in one heap."""
    module = build_backbone("mlp", (1,), 1, 0, run.config.architecture)
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    sampler, tasks = training_sampler(run.config), run.config.train.tasks_per_step
    for step in range(STEPS):
        batch = draw(sampler, step * tasks, tasks)
        x, y = (
            torch.cat(pair, 1)
            for pair in ((batch.support_x, batch.query_x), (batch.support_y, batch.query_y))
        )
        optimizer.zero_grad()
        F.mse_loss(module(x.flatten(0, 1)), y.flatten(0, 1)).backward()
        optimizer.step()
    return module


def test_meta_training_beats_no_training_and_joint_training_after_as_many_steps(run: TrainedRun) -> None:
    fresh = score_of(run, build_backbone("mlp", (1,), 1, 1, run.config.architecture))
    joint = score_of(run, jointly_trained(run))
    own = run.test
    for other in (fresh, joint):
        assert own.mse + own.ci95 < other.mse - other.ci95
    assert own.before is not None
    assert own.mse < 0.7 * own.before


def test_the_metrics_the_result_and_the_kept_state_go_by_the_least_squared_error(run: TrainedRun) -> None:
    with (run.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == [
        "step", "loss", "mse", "validation_loss", "validation_mse", "validation_ci95",
    ]  # fmt: skip
    errors = [float(row["validation_mse"]) for row in rows]
    kept = [row["step"] for row in rows if row["kept"] == "1"]
    assert kept[-1] == rows[errors.index(min(errors))]["step"] == str(run.result["step"])
    assert run.result["validation"]["mse"] == min(errors)
    assert run.result["test"].keys() == {"mse", "ci95", "loss", "tasks", "mse_before"}
    assert (run.result["loss"], run.result["outputs"], run.samples) == ("mean-squared-error", 1, 10)
    assert (run.path / "learning_curve.png").stat().st_size > 0


def test_eval_says_mean_squared_error_and_gives_the_stored_one(run: TrainedRun) -> None:
    result = CliRunner().invoke(main, ["eval", str(run.path), "--tasks", "100"])
    assert result.stdout == (
        f"mean squared error {run.test.mse:.4g} ± {run.test.ci95:.4g} on 100 test tasks, "
        f"{run.test.before:.4g} before adaptation\n"
    )
    scored = json.loads(CliRunner().invoke(main, ["eval", str(run.path), "--tasks", "100", "--json"]).stdout)
    assert scored == run.result["test"]
    assert load_run(run.path).test == run.test
    with pytest.raises(AttributeError, match=r"a score of mean-squared-error has no accuracy, it has mse"):
        _ = run.test.accuracy


def test_a_run_prints_and_logs_the_squared_error(tmp_path: Path) -> None:
    changes = {**QUICK, "train.outer_steps": 1, "train.validation_tasks": 2, "train.test_tasks": 2}
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(main, ["run", RECIPE, "--out", str(tmp_path / "run"), *settings])
    assert result.stdout.startswith(f"{tmp_path / 'run'}: mean squared error ")
    assert "accuracy" not in result.stdout + result.stderr
    assert "step 1: validation mean squared error" in result.stderr


def test_data_of_another_kind_or_shape_are_refused(run: TrainedRun, finished: TrainedRun) -> None:
    with pytest.raises(ConfigError, match=r"glyphs has images, but the run was trained on arrays"):
        evaluate(run, "glyphs", tasks=2)
    with pytest.raises(ConfigError, match=r"sinusoid has arrays, but the run was trained on images"):
        evaluate(finished, "sinusoid", tasks=2)


def small() -> tuple[Network, MethodConfig, Meta, Batch]:
    """An MLP of two outputs and two tasks of random samples, in float64."""
    network = Network(build_backbone("mlp", (3,), 2, 0, {"hidden": (5,)}).double(), (3,), SQUARED_ERROR)
    method = METHODS["maml"](network, MethodConfig(inner_steps=2, inner_step_size=0.1))
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 4, width, dtype=torch.float64, generator=generator) for width in (3, 2))
    return network, method.config, method.init(0).to(torch.float64), Batch(x, y, x + 1, y)


def test_before_and_after_adaptation_are_torchs_mse_loss() -> None:
    network, config, meta, batch = small()
    still = replace(meta, fixed={"alpha": torch.zeros_like(meta.alpha)})
    outputs = network.module(batch.query_x.flatten(0, 1))
    expected = F.mse_loss(outputs, batch.query_y.flatten(0, 1)).item()
    found = measure(network, config, still, [batch])
    assert [found.mse, found.loss, score_before(network, meta, [batch])] == pytest.approx([expected] * 3)


def test_the_outer_gradient_and_the_device_agree_with_torch_on_one_task_at_a_time() -> None:
    network, config, meta, batch = small()
    leaves = {name: value.clone().requires_grad_() for name, value in meta.learned.items()}
    total = torch.zeros((), dtype=torch.float64)
    adapted = adapt(network, config, meta, batch.support_x, batch.support_y)
    for task in range(2):
        weights = dict(leaves)
        for _ in range(2):
            loss = F.mse_loss(
                torch.func.functional_call(network.module, weights, (batch.support_x[task],)),
                batch.support_y[task],
            )
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            weights = {
                name: value - 0.1 * slope
                for (name, value), slope in zip(weights.items(), slopes, strict=True)
            }
        for name, value in weights.items():
            torch.testing.assert_close(adapted.weights[name][task], value.detach(), rtol=1e-6, atol=1e-8)
        outputs = torch.func.functional_call(network.module, weights, (batch.query_x[task],))
        total = total + F.mse_loss(outputs, batch.query_y[task]) / 2
    expected = torch.autograd.grad(total, list(leaves.values()))
    result = METHODS["maml"](network, config).meta_gradient(meta, batch, 0.0)
    for name, value in zip(leaves, expected, strict=True):
        torch.testing.assert_close(result.grads[name], value, rtol=1e-6, atol=1e-8)
    for metric in ("query_loss", "query_mse"):
        assert result.metrics[metric] == pytest.approx(total.item(), rel=1e-6)


def test_better_means_more_accuracy_or_less_error() -> None:
    assert CROSS_ENTROPY.better(0.9, 0.8)
    assert not CROSS_ENTROPY.better(0.8, 0.8)
    assert SQUARED_ERROR.better(0.1, 0.2)
    assert not SQUARED_ERROR.better(0.2, 0.2)
