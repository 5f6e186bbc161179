"""The outer loop on tiny real runs: what it leaves behind, resuming, stopping, choosing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edge_adapt.cloud import ConfigError, TrainedRun, evaluate, load_run
from edge_adapt.cloud.config import RunConfig
from edge_adapt.cloud.errors import TrainingWarning
from edge_adapt.cloud.outer import Meta
from edge_adapt.cloud.outer.pmeta import PMeta
from edge_adapt.cloud.parts.assemble import (
    EVALUATION_SEEDS,
    assemble,
    fixed_sampler,
    load_split,
    training_sampler,
)
from edge_adapt.cloud.recipes import read_recipe
from edge_adapt.cloud.run.directory import RunDirectory, replace_json
from edge_adapt.cloud.run.finish import finish
from edge_adapt.cloud.run.loop import Job, TrainingError, begin, cosine, run
from edge_adapt.cloud.run.progress import Progress
from edge_adapt.cloud.run.state import Best, State, load_checkpoint
from edge_adapt.edge.cost import peak_dynamic_bytes

from .conftest import plain

Train = Callable[..., TrainedRun]
COLUMNS = (
    "step,loss,accuracy,validation_loss,validation_accuracy,validation_ci95,"
    "active_layers,zero_step_sizes,kept,seconds"
)


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def without_time(path: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows(path)]


def make_job(recipe: Path, stripes: Path, out: Path, overrides: dict[str, Any] | None = None) -> Job:
    config = RunConfig.from_table(read_recipe(str(recipe)), {"data.root": str(stripes), **(overrides or {})})
    training = training_sampler(config)
    validation = fixed_sampler(load_split(config.data, "val"), config.task)
    return Job(assemble(config, training.dataset.spec), training, validation, RunDirectory(out))


class StopsAfter(Progress):
    """A person who presses Ctrl-C after some outer steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(total=6, start=0, shown=False)
        self.steps = steps

    def step(self, state: State) -> None:
        if state.step == self.steps:
            raise KeyboardInterrupt


def test_a_run_directory_holds_everything_the_design_names(finished: TrainedRun) -> None:
    assert {path.name for path in finished.path.iterdir()} == {
        "config.toml", "checkpoint.pt", "metrics.csv", "model.safetensors", "layers.json", "result.json",
        "learning_curve.png", "step_sizes.png",
    }  # fmt: skip
    assert (finished.path / "metrics.csv").read_text().splitlines()[0] == COLUMNS
    assert [int(row["step"]) for row in rows(finished.path)] == [2, 4, 6]
    assert finished.config.train.outer_steps == 6


def test_layers_json_has_caps_and_benefits_per_layer_and_step(finished: TrainedRun) -> None:
    table = json.loads((finished.path / "layers.json").read_text())
    assert [row["name"] for row in table] == [layer.name for layer in finished.layers]
    assert table[0]["weight_words"] == 32 * (3 * 3 * 1 + 1)
    assert table[0]["macs"] == 16 * 16 * 32 * 9
    for row, column in zip(table, finished.alpha.T.tolist(), strict=True):
        assert len(row["benefit"]) == 2
        assert [benefit == 0 for benefit in row["benefit"]] == [size == 0 for size in column]
    head = table[-1]
    assert (head["is_output"], head["cap"]) == (True, None)


def test_the_result_says_what_was_reached_and_with_what(finished: TrainedRun) -> None:
    result = finished.result
    assert result["test"]["tasks"] == 6
    assert 0 <= result["test"]["accuracy"] <= 1
    assert result["zero_step_sizes"] == float((finished.alpha == 0).double().mean())
    assert result["versions"]["torch"] == torch.__version__
    assert (result["recipe"], result["method"], result["seed"]) == ("stripes", "p-meta", 0)


def test_the_kept_model_is_the_best_validated_one(finished: TrainedRun) -> None:
    accuracies = [float(row["validation_accuracy"]) for row in rows(finished.path)]
    kept = [int(row["step"]) for row in rows(finished.path) if row["kept"] == "1"]
    assert finished.result["validation"]["accuracy"] == max(accuracies)
    assert finished.result["step"] == kept[-1] == [2, 4, 6][accuracies.index(max(accuracies))]
    assert evaluate(finished, tasks=6, split="val").accuracy == max(accuracies)


def test_loading_gives_the_weights_attention_and_step_sizes_that_were_kept(finished: TrainedRun) -> None:
    best = load_checkpoint(finished.path / "checkpoint.pt")[0].best
    assert best is not None
    loaded = load_run(finished.path)
    assert torch.equal(loaded.alpha, best.meta.alpha)
    assert loaded.attention.keys() == {name for name in best.meta.learned if name.startswith("attention.")}
    assert loaded.rho == (0.3, 0.0)
    assert (loaded.samples, loaded.spec.shape) == (6, (1, 16, 16))
    for name, value in loaded.module().state_dict().items():
        assert torch.equal(value, best.meta.learned[name])


def test_an_interrupted_run_resumes_to_the_same_bits(finished: TrainedRun, run_tiny: Train, recipe: Path,
                                                    stripes: Path, tmp_path: Path) -> None:  # fmt: skip
    job = make_job(recipe, stripes, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(job, begin(job), StopsAfter(3))
    assert not (tmp_path / "run" / "result.json").exists()
    assert len(rows(tmp_path / "run")) == 1
    resumed = run_tiny(tmp_path / "run", resume=True)
    assert without_time(resumed.path) == without_time(finished.path)
    assert (resumed.path / "model.safetensors").read_bytes() == (
        finished.path / "model.safetensors"
    ).read_bytes()
    assert resumed.result["test"] == finished.result["test"]
    assert resumed.caps == finished.caps


def test_the_same_seed_repeats_a_run_and_another_does_not(
    finished: TrainedRun, run_tiny: Train, recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    again = run_tiny(tmp_path / "a")
    assert torch.equal(again.alpha, finished.alpha)
    assert without_time(again.path) == without_time(finished.path)
    other = begin(make_job(recipe, stripes, tmp_path / "b", {"seed": 1})).meta.learned
    same = begin(make_job(recipe, stripes, tmp_path / "c")).meta.learned
    start = finished.parts.network.weights()
    assert all(torch.equal(same[name], value) for name, value in start.items())
    assert not torch.equal(other["fc.weight"], start["fc.weight"])


def test_resuming_a_finished_run_changes_nothing(run_tiny: Train, tmp_path: Path) -> None:
    run_tiny(tmp_path / "run", {"train.outer_steps": 2})
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    run_tiny(tmp_path / "run", {"train.outer_steps": 2}, resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before


def test_a_run_directory_is_neither_overwritten_nor_resumed_with_other_settings(
    finished: TrainedRun, run_tiny: Train, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"is not empty: add --resume"):
        run_tiny(finished.path)
    with pytest.raises(ConfigError, match=r"cannot be resumed: method\.rho_fw: 0\.3 -> 0\.5"):
        run_tiny(finished.path, {"method.rho_fw": 0.5}, resume=True)
    with pytest.raises(ConfigError, match=r"nothing to resume"):
        run_tiny(tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_start_that_was_cut_short_before_its_first_checkpoint_may_be_started_again(
    finished: TrainedRun, run_tiny: Train, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("cut short")
    (tmp_path / "checkpoint.pt.partial").write_bytes(b"cut short")
    again = run_tiny(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in finished.path.iterdir()}
    assert torch.equal(again.alpha, finished.alpha)


def test_a_damaged_checkpoint_is_refused(run_tiny: Train, tmp_path: Path) -> None:
    run_tiny(tmp_path / "run", {"train.outer_steps": 1})
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"checkpoint\.pt is no checkpoint or is damaged"):
        run_tiny(tmp_path / "run", {"train.outer_steps": 1}, resume=True)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(
    run_tiny: Train, tmp_path: Path
) -> None:
    broken = {"train.learning_rate": 1e30, "train.validate_every": 100}
    with pytest.raises(TrainingError, match=r"not a number at outer step 2; .*lower train\.learning_rate"):
        run_tiny(tmp_path / "run", broken)
    state, _ = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert all(bool(value.isfinite().all()) for value in state.meta.learned.values())
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_run_that_failed_says_so_and_its_kept_weights_start_a_new_one(
    run_tiny: Train, tmp_path: Path
) -> None:
    steep = {"train.learning_rate": 1e30, "train.validate_every": 100}
    with pytest.raises(TrainingError, match="--resume would come to the same end") as failed:
        run_tiny(tmp_path / "run", steep)
    with pytest.raises(ConfigError, match=r"has no result, its training failed: .*initial_weights=") as told:
        load_run(tmp_path / "run")
    assert str(failed.value) in str(told.value)
    with pytest.raises(TrainingError, match="not a number at outer step 2"):
        run_tiny(tmp_path / "run", steep, resume=True)
    kept = tmp_path / "run" / "checkpoint.pt"
    assert str(kept) in str(failed.value)
    again = run_tiny(
        tmp_path / "new", {"train.initial_weights": str(kept), "train.outer_steps": 2, "seed": 1}
    )
    assert again.result["step"] == 2
    assert not (again.path / "failed.txt").exists()


def test_a_kept_state_without_a_step_size_is_warned_of(recipe: Path, stripes: Path, tmp_path: Path) -> None:
    job = make_job(recipe, stripes, tmp_path / "run")
    state = begin(job)
    still = replace(state.meta, learned={**state.meta.learned, "alpha": state.meta.alpha * 0})
    row = {
        "step": 1,
        "loss": 1,
        "accuracy": 0.5,
        "validation_loss": 1,
        "validation_accuracy": 0.5,
        "validation_ci95": 0,
        "kept": 1,
    }
    state = replace(state, best=Best(1, 0.5, still), history=(row,))
    test = fixed_sampler(load_split(job.config.data, "test"), job.config.task)
    with pytest.warns(TrainingWarning, match=r"no layer is active: .* lower method\.penalty_strength"):
        finish(job, state, test, Progress(total=6, start=0, shown=False))


def test_a_step_to_infinite_weights_is_not_taken(run_tiny: Train, tmp_path: Path) -> None:
    """Else Ctrl-C or a validation of one lucky loss would save them."""
    with pytest.raises(
        TrainingError, match=r"weight is not a number at outer step 1; .*checkpoint\.pt keeps"
    ):
        run_tiny(tmp_path / "run", {"train.learning_rate": 1e39, "train.validate_every": 100})
    state, _ = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert state.step == 0


def test_a_kept_state_that_diverges_on_the_test_tasks_leaves_no_result(
    recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    job = make_job(recipe, stripes, tmp_path / "run")
    state = begin(job)
    steep = replace(state.meta, learned={**state.meta.learned, "alpha": state.meta.alpha * 1e30})
    state = replace(state, best=Best(1, 0.5, steep))
    test = fixed_sampler(load_split(job.config.data, "test"), job.config.task)
    with pytest.raises(TrainingError, match=r"the test loss of the kept state is not a number"):
        finish(job, state, test, Progress(total=6, start=0, shown=False))
    assert not {"model.safetensors", "layers.json", "result.json"} & {
        p.name for p in job.directory.path.iterdir()
    }


def test_a_number_that_json_cannot_say_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        replace_json(tmp_path / "result.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


class AcceptsOnlyTheMiddle(PMeta):
    """A method whose constraint holds in the middle of training only."""

    def eligible(self, meta: Meta, progress: float) -> bool:
        return 0.5 < progress < 0.9


class AcceptsNothing(PMeta):
    """A method whose constraint is never met."""

    def eligible(self, meta: Meta, progress: float) -> bool:
        return False


@pytest.mark.parametrize(("kind", "kept"), [(AcceptsOnlyTheMiddle, 4), (AcceptsNothing, None)])
def test_only_states_the_method_accepts_are_kept(
    kind: type[PMeta], kept: int | None, recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    job = make_job(recipe, stripes, tmp_path / "run")
    method = kind(job.parts.network, job.config.method)
    job = replace(job, parts=replace(job.parts, method=method))
    with Progress(total=6, start=0, shown=False) as shown:
        best = run(job, begin(job), shown).best
    assert (best.step if best else None) == kept


def test_a_model_kept_under_the_peak_penalty_meets_its_target(run_tiny: Train, tmp_path: Path) -> None:
    peak = {"method.penalty": "peak", "method.prune_at": 0.9, "method.target_fraction": 0.7}
    trained = run_tiny(
        tmp_path / "run", {**peak, "train.learning_rate": 0.5, "train.final_learning_rate": 0.5}
    )
    updated = (trained.alpha != 0).any(0).tolist()
    dense = peak_dynamic_bytes(trained.layers, [True] * 9)
    assert trained.result["step"] == 6
    assert peak_dynamic_bytes(trained.layers, updated) <= 0.7 * dense


def test_a_setting_that_the_method_would_ignore_is_refused(run_tiny: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"method\.attention: maml fixes it to false"):
        run_tiny(tmp_path / "run", {**plain("maml"), "method.attention": True})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({**plain("maml"), "method.rho_fw": 0.5}, r"rho_fw: 0\.5 .* needs attention = true"),
        ({"method.attention": False, "method.cap": 4}, r"cap: 4 .* needs attention = true"),
        ({**plain("maml++"), "method.penalty_strength": 0.1}, r"penalty_strength: .* a penalty"),
        ({"method.penalty": "none", "method.penalty_strength": 0.1}, r"penalty_strength: .* a penalty"),
        ({"method.penalty": "activations", "method.target_fraction": 0.4}, r'needs penalty = "peak"'),
        ({"method.penalty": "none", "method.prune_at": 0.2}, r'prune_at: .* needs penalty = "peak"'),
        ({"method.first_order": True, "method.first_order_until": 0.5}, r"needs first_order = false"),
    ],
)
def test_a_setting_that_another_one_switches_off_is_refused(
    overrides: dict[str, Any], message: str, run_tiny: Train, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_tiny(tmp_path / "run", overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"task.ways": 4}, r"ways"),
        ({"task.shots": 4}, r"shots"),
        ({"data.size": 8}, r"size must be at least 16"),
        (
            {"method.penalty": "peak", "method.target_fraction": 0.01},
            r"method\.target_fraction 0\.01 cannot be met",
        ),
        ({"data.root": "none"}, r"data\.root: which folder of images"),
        ({"data.root": "nowhere"}, r"nowhere"),
    ],
)
def test_what_does_not_fit_the_data_is_refused_before_anything_is_written(
    overrides: dict[str, Any], message: str, recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    from edge_adapt.cloud import train

    with pytest.raises(ConfigError, match=message):
        train(str(recipe), tmp_path / "run", {"data.root": str(stripes), **overrides})
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_follows_half_a_cosine() -> None:
    assert cosine(0, 0.01) == 1
    assert cosine(0.5, 0.01) == pytest.approx(0.505)
    assert cosine(1, 0.01) == pytest.approx(0.01)


def test_validation_and_test_tasks_do_not_depend_on_the_runs_seed(stripes: Path, recipe: Path) -> None:
    assert EVALUATION_SEEDS["val"] != EVALUATION_SEEDS["test"]
    batches = []
    for seed in (0, 1):
        config = RunConfig.from_table(read_recipe(str(recipe)), {"seed": seed, "data.root": str(stripes)})
        batches.append(fixed_sampler(load_split(config.data, "val"), config.task).batch(0, 3).support_x)
    assert (batches[0] == batches[1]).all()
