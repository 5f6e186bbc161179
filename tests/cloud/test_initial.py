"""Meta-training from weights of earlier training: they are where it starts, and they must fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from edge_adapt.cloud.config import RunConfig
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.parts.assemble import assemble, fixed_sampler, load_split, training_sampler
from edge_adapt.cloud.parts.initial import load_extractor, read_weights
from edge_adapt.cloud.recipes import read_recipe
from edge_adapt.cloud.run.directory import RunDirectory, read_config
from edge_adapt.cloud.run.loop import Job, begin
from edge_adapt.cloud.run.state import Best
from safetensors.torch import save_file
from torch import nn


def make_job(recipe: Path, stripes: Path, out: Path, weights: Path | None) -> Job:
    changes = {"data.root": str(stripes)} | ({"train.initial_weights": str(weights)} if weights else {})
    config = RunConfig.from_table(read_recipe(str(recipe)), changes)
    training = training_sampler(config)
    validation = fixed_sampler(load_split(config.data, "val"), config.task)
    return Job(assemble(config, training.dataset.spec), training, validation, RunDirectory(out))


def test_the_weights_in_the_file_are_taken_and_all_others_stay_as_they_start(
    recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    plain = begin(make_job(recipe, stripes, tmp_path / "plain", None)).meta.learned
    given = {"conv2.weight": torch.full_like(plain["conv2.weight"], 0.25)}
    save_file(given, tmp_path / "weights.safetensors")
    found = begin(make_job(recipe, stripes, tmp_path / "run", tmp_path / "weights.safetensors")).meta.learned
    assert torch.equal(found["conv2.weight"], given["conv2.weight"])
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain if name != "conv2.weight")


def test_of_a_checkpoint_the_best_weights_are_taken_but_no_step_sizes(
    recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    job = make_job(recipe, stripes, tmp_path / "first", None)
    state = begin(job)
    best = {name: value + 1 for name, value in state.meta.learned.items()}
    job.directory.save(replace(state, best=Best(1, 0.5, replace(state.meta, learned=best))), job.config)
    found = begin(make_job(recipe, stripes, tmp_path / "run", job.directory.checkpoint)).meta.learned
    assert torch.equal(found["alpha"], state.meta.alpha)
    assert all(torch.equal(value, best[name]) for name, value in found.items() if name != "alpha")
    other = replace(state.meta, learned={"fc.bias": torch.zeros(7)})
    job.directory.save(replace(state, meta=other), job.config)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt, fc\.bias: the network has torch\.float32 \(3,\)"):
        begin(make_job(recipe, stripes, tmp_path / "other", job.directory.checkpoint))
    fewer = {name: value for name, value in state.meta.learned.items() if name != "fc.bias"}
    job.directory.save(replace(state, meta=replace(state.meta, learned=fewer)), job.config)
    with pytest.raises(
        ConfigError, match=r"checkpoint\.pt lacks fc\.bias .* of the same method and backbone"
    ):
        begin(make_job(recipe, stripes, tmp_path / "fewer", job.directory.checkpoint))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "conv5.weight",
            torch.zeros(3),
            r"conv5\.weight: the network has no such weight, got torch\.float32 \(3,\)",
        ),
        (
            "fc.bias",
            torch.zeros(7),
            r"fc\.bias: the network has torch\.float32 \(3,\), got torch\.float32 \(7,\)",
        ),
        ("fc.bias", torch.zeros(3, dtype=torch.float64), r"got torch\.float64 \(3,\)"),
        (
            "fc.bias",
            torch.tensor([0, torch.inf, 0]),
            r"weights\.safetensors, fc\.bias has values that are not finite",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_and_nothing_is_written(
    recipe: Path, stripes: Path, tmp_path: Path, name: str, value: torch.Tensor, message: str
) -> None:
    save_file({name: value}, tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match=message):
        begin(make_job(recipe, stripes, tmp_path / "run", tmp_path / "weights.safetensors"))
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_missing_or_no_safetensors_is_refused(
    recipe: Path, stripes: Path, tmp_path: Path
) -> None:
    (tmp_path / "damaged").write_bytes(b"not tensors")
    for weights in ("missing", "damaged"):
        with pytest.raises(ConfigError, match=rf"train\.initial_weights: .*{weights} cannot be read"):
            begin(make_job(recipe, stripes, tmp_path / "run", tmp_path / weights))


def test_an_extractor_starts_from_what_a_run_of_a_learner_kept(tmp_path: Path) -> None:
    """There its tensors are named extractor.*, beside those of generators and films."""
    module = nn.Sequential()
    module.add_module("conv", nn.Conv2d(1, 2, 3))
    extractor = nn.Sequential()
    extractor.add_module("conv", module.conv)
    module.add_module("fc", nn.Linear(2, 5))
    kept = {f"conv.{name}": torch.rand_like(value) for name, value in module.conv.state_dict().items()}
    tensors = {f"extractor.{name}": value for name, value in kept.items()}
    others = {"extractor.film.scale": torch.ones(2), "generator.weight": torch.ones(3)}
    save_file({**tensors, **others}, tmp_path / "model.safetensors")
    load_extractor(module, extractor, tmp_path / "model.safetensors")
    assert all(torch.equal(module.state_dict()[name], value) for name, value in kept.items())
    del tensors["extractor.conv.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"lacks conv\.weight and 1 more of 2 tensors"):
        load_extractor(module, extractor, tmp_path / "model.safetensors")


def test_a_folder_is_no_file_of_weights_but_what_is_in_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder; name a file of weights"):
        read_weights(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"is a folder; name .*weights\.safetensors$"):
        read_weights(tmp_path)


def test_the_directory_of_a_pre_training_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('backbone = "conv4"\nepochs = 3\n')
    with pytest.raises(ConfigError, match=r"is a pre-training, not a run: .*weights\.safetensors$"):
        read_config(tmp_path)
