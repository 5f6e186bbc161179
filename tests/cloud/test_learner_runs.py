"""Runs of learners that adapt by forward passes: trained, resumed, evaluated, loaded; what cannot work is refused."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from edge_adapt.cloud import AmortizedRun, ConfigError, evaluate, load_run, train
from edge_adapt.cloud.cli import main
from edge_adapt.cloud.config import RunConfig
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.parts.assemble import (
    assemble,
    assemble_learner,
    fixed_sampler,
    load_split,
    training_sampler,
)
from edge_adapt.cloud.recipes import read_recipe
from edge_adapt.cloud.run.directory import RunDirectory
from edge_adapt.cloud.run.loop import Job, begin, run
from edge_adapt.cloud.run.progress import Progress
from edge_adapt.cloud.run.state import State
from safetensors.torch import load_file, save_file
from torch import Tensor

RECIPE = """
summary = "test: prototypes on stripes"
backbone = "conv4"
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
name = "protonets"
[lite]
h = 3
chunk = 4
query_batch = 4
[train]
outer_steps = 6
tasks_per_step = 2
validate_every = 2
validation_tasks = 6
test_tasks = 6
"""
KINDS = ("protonets", "cnaps", "simple-cnaps")


@pytest.fixture(scope="module")
def prototypes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "prototypes.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a backbone, without its classifier, as `meta-train pretrain` leaves them."""
    state = build_backbone("conv4", (1, 16, 16), 3, seed=7).state_dict()
    path = tmp_path_factory.mktemp("extractor") / "weights.safetensors"
    save_file({name: value for name, value in state.items() if not name.startswith("fc.")}, path)
    return path


@pytest.fixture(scope="module")
def runs(
    prototypes: Path, extractor: Path, stripes: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, AmortizedRun]:
    """A finished run of every learner."""
    found: dict[str, AmortizedRun] = {}
    for name in KINDS:
        changes = {"method.name": name, "train.initial_weights": str(extractor)}
        finished = train(str(prototypes), tmp_path_factory.mktemp(name) / "run", changes, data=stripes)
        assert isinstance(finished, AmortizedRun)
        found[name] = finished
    return found


def make_job(recipe: Path, stripes: Path, out: Path, **changes: Any) -> Job:
    config = RunConfig.from_table(read_recipe(str(recipe)), {"data.root": str(stripes), **changes})
    training = training_sampler(config)
    validation = fixed_sampler(load_split(config.data, "val"), config.task)
    parts = assemble_learner(config, training.spec)
    return Job(parts, training, validation, RunDirectory(out))


def metrics(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", KINDS)
def test_a_run_leaves_its_files_behind_and_none_of_the_inner_steps(
    name: str, runs: dict[str, AmortizedRun]
) -> None:
    finished = runs[name]
    assert {path.name for path in finished.path.iterdir()} == {
        "config.toml", "checkpoint.pt", "metrics.csv", "model.safetensors", "result.json", "learning_curve.png",
    }  # fmt: skip
    rows = metrics(finished.path)
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert not {"active_layers", "zero_step_sizes"} & (rows[0].keys() | finished.result.keys())
    assert finished.result["method"] == name
    assert finished.result["test"]["accuracy_before"] is None


@pytest.mark.parametrize("name", KINDS)
def test_the_kept_model_is_the_best_validated_one_and_scores_the_same_when_loaded(
    name: str, runs: dict[str, AmortizedRun]
) -> None:
    finished = load_run(runs[name].path)
    accuracies = [float(row["validation_accuracy"]) for row in metrics(finished.path)]
    assert evaluate(finished, tasks=6, split="val").accuracy == max(accuracies)
    again = evaluate(finished, tasks=6)
    assert (again.accuracy, again.ci95) == (finished.test.accuracy, finished.test.ci95)
    assert again.loss == pytest.approx(
        finished.test.loss, rel=1e-6
    )  # sums of tensors that lie elsewhere in memory
    assert finished.samples == 6


@pytest.mark.parametrize("name", KINDS)
def test_the_modules_of_a_loaded_run_carry_all_that_was_learned_and_kept(
    name: str, runs: dict[str, AmortizedRun], stripes: Path
) -> None:
    finished = load_run(runs[name].path)
    assert isinstance(finished, AmortizedRun)
    modules = finished.modules()
    carried, kept = modules.tensors(), {**finished.meta.learned, **finished.meta.fixed}
    assert carried.keys() == kept.keys()
    assert all(torch.equal(carried[key], kept[key]) for key in kept)
    assert not any(part.training for part in modules.extractor.modules())
    images = torch.randn(2, 1, 16, 16)
    if name == "protonets":
        assert modules.extractor(images).shape == (2, modules.features)


def test_a_frozen_extractor_is_that_of_the_file_and_a_learned_one_starts_there(
    runs: dict[str, AmortizedRun], prototypes: Path, extractor: Path, stripes: Path, tmp_path: Path
) -> None:
    given = build_backbone("conv4", (1, 16, 16), 3, seed=7).state_dict()
    name = "conv1.weight"
    frozen = runs["simple-cnaps"].meta.fixed[f"extractor.{name}"]
    assert torch.equal(frozen, given[name])
    start = begin(
        make_job(prototypes, stripes, tmp_path / "run", **{"train.initial_weights": str(extractor)})
    )
    assert torch.equal(start.meta.learned[f"extractor.{name}"], given[name])
    assert not torch.equal(runs["protonets"].meta.learned[f"extractor.{name}"], given[name])


class StopsAfter(Progress):
    """A person who presses Ctrl-C after some outer steps."""

    def step(self, state: State) -> None:
        if state.step == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["protonets", "simple-cnaps"])
def test_an_interrupted_run_resumes_to_the_same_bits(
    name: str,
    runs: dict[str, AmortizedRun],
    prototypes: Path,
    extractor: Path,
    stripes: Path,
    tmp_path: Path,
) -> None:
    changes = {"method.name": name, "train.initial_weights": str(extractor)}
    job = make_job(prototypes, stripes, tmp_path / "run", **changes)
    with pytest.raises(KeyboardInterrupt):
        run(job, begin(job), StopsAfter(total=6, start=0, shown=False))
    resumed = train(str(prototypes), tmp_path / "run", changes, data=stripes, resume=True)
    assert metrics(resumed.path) == metrics(runs[name].path)
    model = "model.safetensors"
    assert (resumed.path / model).read_bytes() == (runs[name].path / model).read_bytes()


def test_an_interrupted_run_of_inner_steps_with_lite_resumes_to_the_same_bits(
    recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    changes = {"lite.h": 3, "lite.chunk": 4, "train.outer_steps": 4}
    whole = train(str(recipe), tmp_path / "whole", changes, data=stripes)
    config = RunConfig.from_table(read_recipe(str(recipe)), {"data.root": str(stripes), **changes})
    training = training_sampler(config)
    validation = fixed_sampler(load_split(config.data, "val"), config.task)
    job = Job(assemble(config, training.spec), training, validation, RunDirectory(tmp_path / "run"))
    with pytest.raises(KeyboardInterrupt):
        run(job, begin(job), StopsAfter(total=4, start=0, shown=False))
    resumed = train(str(recipe), tmp_path / "run", changes, data=stripes, resume=True)
    assert metrics(resumed.path) == metrics(whole.path)
    assert evaluate(resumed, tasks=4) == evaluate(whole, tasks=4)


def test_a_disk_cache_changes_no_number(
    runs: dict[str, AmortizedRun], prototypes: Path, extractor: Path, stripes: Path, tmp_path: Path
) -> None:
    changes = {
        "train.initial_weights": str(extractor),
        "data.cache_size": "2kB",
        "data.cache": str(tmp_path / "cache"),
    }
    cached = train(str(prototypes), tmp_path / "run", changes, data=stripes)
    model = "model.safetensors"
    assert (cached.path / model).read_bytes() == (runs["protonets"].path / model).read_bytes()
    assert (tmp_path / "cache" / "16x16x1.pixels").stat().st_size <= 2000


def test_prototypes_learn_to_tell_stripes_apart(prototypes: Path, stripes: Path, tmp_path: Path) -> None:
    changes = {"train.outer_steps": 30, "train.validate_every": 30, "train.learning_rate": 0.005}
    job = make_job(prototypes, stripes, tmp_path / "run", **changes)
    state = begin(job)
    before = job.parts.measure(state.meta, job.training, 40).loss
    with Progress(total=30, start=0, shown=False) as shown:
        trained = run(job, state, shown)
    assert job.parts.measure(trained.meta, job.training, 40).loss < before / 2


def test_the_command_line_runs_lists_and_scores_a_learner(
    prototypes: Path, stripes: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    quick = [
        "--set",
        "train.outer_steps=1",
        "--set",
        "train.test_tasks=2",
        "--set",
        "train.validation_tasks=2",
    ]
    ran = CliRunner().invoke(main, ["run", str(prototypes), "--data", str(stripes), "--out", out, *quick])
    assert ran.exit_code == 0, ran.output
    assert "on 2 test tasks, adapts by forward passes, " in ran.output
    scored = CliRunner().invoke(main, ["eval", out, "--tasks", "2"])
    assert scored.exit_code == 0, scored.output
    assert scored.output.strip().endswith("on 2 test tasks")
    listed = CliRunner().invoke(main, ["list"]).output
    assert all(f"  {name} " in listed for name in KINDS)
    for arguments in (["eval", out, "--batch", "2"], ["selection", out]):
        refused = CliRunner().invoke(main, arguments)
        assert refused.exit_code == 2
        assert "protonets" in refused.output


def refusal(prototypes: Path, stripes: Path, out: Path, **changes: Any) -> str:
    """What `train` says to these settings; nothing may be written."""
    with pytest.raises(ConfigError) as caught:
        train(str(prototypes), out, changes, data=stripes)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lite.h": 7}, "lite.h: 7 asked for, but a task's support set has 6 samples"),
        (
            {"lite.h": 7, "method.name": "maml", "method.attention": False},
            "lite.h: 7 asked for, but a task's",
        ),
        ({"lite.h": "none", "lite.stratified": True}, "lite.stratified: true would have no effect"),
        ({"lite.h": "none", "lite.control_variate": True}, "lite.control_variate: true would have no effect"),
        ({"method.name": "simple-cnaps"}, "train.initial_weights: simple-cnaps keeps its extractor as it is"),
        ({"method.name": "cnaps"}, "name a file, such as meta-train pretrain leaves behind"),
        ({"architecture.norm": "batch"}, "is a BatchNorm, whose statistics stay frozen"),
        ({"method.film": False}, "method.film: false would have no effect, protonets does not use it"),
        ({"method.rho_fw": 0.4}, "method.rho_fw: 0.4 would have no effect"),
        ({"method.covariance": "identity"}, 'method.covariance: "identity" would have no effect'),
        ({"method.name": "reptile", "method.attention": False}, "lite.h: "),
        ({"lite.precision": "float16"}, "lite.precision: expected one of float32, bfloat16"),
        ({"data.cache_size": "1kB"}, "data.cache_size: the cache holds 3 images"),
        ({"backbone": "timm:resnet18"}, "backbone: timm:resnet18: it needs the package timm"),
        ({"train.initial_weights": "nowhere.pt"}, "train.initial_weights: nowhere.pt cannot be read"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, prototypes: Path, stripes: Path, tmp_path: Path
) -> None:
    if "data.cache_size" in changes:
        changes = {**changes, "data.cache": str(tmp_path / "cache")}
    assert message in refusal(prototypes, stripes, tmp_path / "run", **changes)


def test_regressions_are_not_for_learners(prototypes: Path, tmp_path: Path) -> None:
    path = tmp_path / "sines.toml"
    path.write_text('[data]\nname = "sinusoid"\n[task]\nways = 1\n[method]\nname = "protonets"\n')
    with pytest.raises(ConfigError, match=r"method\.name: protonets classifies images, sinusoid has none"):
        train(str(path), tmp_path / "run")


def batch_norm_state() -> dict[str, Tensor]:
    """Of a conv4 with BatchNorm that has seen data, with a classifier of seven classes."""
    module = build_backbone("conv4", (1, 16, 16), 7, 3, {"norm": "batch"}).train()
    module(torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_checkpoint_file_brings_the_statistics_of_norms_and_another_classifier_is_left_away(
    suffix: str, prototypes: Path, stripes: Path, tmp_path: Path
) -> None:
    state, path = batch_norm_state(), tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pt" else save_file)(state, path)
    changes = {"architecture.norm": "batch", "train.initial_weights": str(path)}
    meta = begin(make_job(prototypes, stripes, tmp_path / "run", **changes)).meta
    statistics = {name for name in state if "running" in name}
    assert len(statistics) >= 8
    assert meta.fixed.keys() == {f"extractor.{name}" for name in statistics}
    for name, value in state.items():
        found = {**meta.learned, **meta.fixed}.get(f"extractor.{name}")
        assert (found is None) == (name.startswith("fc.") or name.endswith("num_batches_tracked"))
        assert found is None or torch.equal(found, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv2_norm.running_mean": None}, r"lacks \S+running_mean and 0 more of \d+ tensors"),
        ({"conv1.weight": torch.zeros(3)}, r"conv1\.weight: the network has torch\.float32 \(32, 1, 3, 3\)"),
        ({"layer9": torch.zeros(3)}, r"layer9: the network has no such weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    change: dict[str, Tensor | None], message: str, prototypes: Path, stripes: Path, tmp_path: Path
) -> None:
    state: dict[str, Tensor | None] = {**batch_norm_state()}
    for name, value in change.items():
        if value is None:
            name = next(key for key in state if key.endswith("running_mean"))
        state[name] = value
    torch.save({name: value for name, value in state.items() if value is not None}, tmp_path / "weights.pt")
    changes = {"architecture.norm": "batch", "train.initial_weights": str(tmp_path / "weights.pt")}
    with pytest.raises(ConfigError, match=message):
        begin(make_job(prototypes, stripes, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_pickled_file_that_is_no_state_dict_is_refused(
    prototypes: Path, stripes: Path, tmp_path: Path
) -> None:
    torch.save({"state": {"conv1.weight": torch.zeros(1)}}, tmp_path / "weights.pt")
    changes = {"train.initial_weights": str(tmp_path / "weights.pt")}
    with pytest.raises(ConfigError, match=r"weights\.pt: expected a state dict, tensors by name"):
        begin(make_job(prototypes, stripes, tmp_path / "run", **changes))


def test_a_model_file_with_numbers_that_are_none_is_refused_by_name(
    runs: dict[str, AmortizedRun], tmp_path: Path
) -> None:
    shutil.copytree(runs["cnaps"].path, tmp_path / "run")
    file = tmp_path / "run" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.startswith("film_generator."))
    save_file({**tensors, name: torch.full_like(tensors[name], torch.nan)}, file)
    with pytest.raises(ConfigError, match=rf"{name} has values that are not finite; train again"):
        load_run(tmp_path / "run")
