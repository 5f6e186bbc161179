"""Every ablation of p-Meta runs from a recipe's settings, and says where it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from edge_adapt.cloud import ConfigError, TrainedRun, evaluate
from edge_adapt.cloud.cli import main
from edge_adapt.export.adaptation import adaptation
from edge_adapt.export.from_run import source_of_run

from .conftest import plain

SHORT = {
    "train.outer_steps": 2,
    "train.tasks_per_step": 1,
    "train.validation_tasks": 2,
    "train.test_tasks": 2,
}
CHANNELS = {"method.attention": False, "method.channel_alpha": True}


@pytest.fixture(scope="module")
def batch_norm(run_tiny: Callable[..., TrainedRun], tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """MAML on 4Conv with batch norm and average pooling, hardly trained."""
    changes = {**SHORT, **plain("maml"), "architecture.norm": "batch", "architecture.pool": "average"}
    return run_tiny(tmp_path_factory.mktemp("batch") / "run", changes)


def test_the_accumulation_batch_matters_with_batch_norm(batch_norm: TrainedRun) -> None:
    together, whole, alone = (evaluate(batch_norm, tasks=4, batch=batch) for batch in (None, 6, 1))
    assert together.loss == pytest.approx(whole.loss, rel=1e-6)
    assert abs(alone.loss - together.loss) > 1e-3


def test_the_accumulation_batch_matters_little_with_group_norm(finished: TrainedRun) -> None:
    device, alone, whole = (evaluate(finished, tasks=4, batch=batch) for batch in (None, 1, 6))
    assert alone.loss == pytest.approx(device.loss, rel=1e-6)
    assert whole.loss != pytest.approx(device.loss, rel=1e-9)
    assert whole.loss == pytest.approx(device.loss, rel=1e-1)


def test_the_command_line_takes_the_accumulation_batch(finished: TrainedRun) -> None:
    arguments = ["eval", str(finished.path), "--tasks", "4", "--json", "--batch", "6"]
    found = json.loads(CliRunner().invoke(main, arguments).stdout)
    assert found["loss"] == pytest.approx(evaluate(finished, tasks=4, batch=6).loss, rel=1e-9)


def test_no_samples_at_once_are_refused(finished: TrainedRun) -> None:
    with pytest.raises(ConfigError, match="batch must be at least 1, got 0"):
        evaluate(finished, tasks=4, batch=0)


def test_batch_statistics_are_refused_at_export(batch_norm: TrainedRun) -> None:
    with pytest.raises(
        ConfigError, match=r'layer norm1 was meta-trained with .* its batch.*architecture.norm = "group"'
    ):
        source_of_run(batch_norm)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (CHANNELS, "the device has no step sizes of channels"),
        ({"method.attention_masks": "maps"}, "the device's attention scales weight gradients"),
    ],
)
def test_ablations_that_no_device_knows_train_and_are_refused_at_export(
    changes: dict[str, Any], message: str, run_tiny: Callable[..., TrainedRun], tmp_path: Path
) -> None:
    run = run_tiny(tmp_path / "run", {**SHORT, **changes})
    assert 0 <= evaluate(run, tasks=2).accuracy <= 1
    with pytest.raises(ConfigError, match=message):
        source_of_run(run)


@pytest.mark.parametrize("off", ["fw", "bw"])
def test_attention_of_one_side_reaches_the_device(
    off: str, run_tiny: Callable[..., TrainedRun], tmp_path: Path
) -> None:
    run = run_tiny(tmp_path / "run", {**SHORT, f"method.rho_{off}": "none"})
    program = adaptation(source_of_run(run))
    made = {op.outputs[0].partition("::")[0] for op in program.ops() if op.kind == "ChannelAttention"}
    assert made == {"fw", "bw"} - {off}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.attention": False, "method.attention_masks": "maps"}, "it needs attention = true"),
        (
            {"method.rho_bw": "none", "method.bw_input": "raw"},
            ".raw. would have no effect, it needs a rho_bw",
        ),
        ({"method.channel_alpha": True}, "method.channel_alpha must be false, or attention = false"),
    ],
)
def test_ablations_without_effect_are_refused_by_name(
    changes: dict[str, Any], message: str, run_tiny: Callable[..., TrainedRun], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_tiny(tmp_path / "run", {**SHORT, **changes})
