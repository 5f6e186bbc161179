"""Every recipe makes a network and a method that take all of its settings; batches are what was drawn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from edge_adapt.cloud.amortized import LEARNERS
from edge_adapt.cloud.config import RunConfig
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.parts.assemble import (
    assemble,
    assemble_learner,
    chunk_of,
    draw,
    draw_all,
    fixed_sampler,
    load_split,
    training_sampler,
)
from edge_adapt.cloud.recipes import read_recipe, recipe_names
from edge_adapt.cloud.settings.tables import read_toml, write_toml
from edge_adapt.cloud.settings.typed import to_table
from edge_adapt.cloud.tasks import DECODED
from edge_adapt.edge.inputs import InputSpec
from torch import nn

GREY28 = InputSpec(channels=1, height=28, width=28, mean=(0.0,), std=(1.0,))


def is_learner(recipe: str) -> bool:
    """Whether a recipe's method adapts by forward passes."""
    return read_recipe(recipe).get("method", {}).get("name") in LEARNERS


def config_of(recipe: str) -> tuple[RunConfig, InputSpec]:
    config = RunConfig.from_table(read_recipe(recipe))
    return config, config.data.spec() or DECODED.get(config.data.name, GREY28)


@pytest.mark.parametrize("name", [name for name in recipe_names() if not is_learner(name)])
def test_a_recipe_makes_a_network_and_a_method_that_ignores_none_of_its_settings(name: str) -> None:
    config, spec = config_of(name)
    parts = assemble(config, spec)
    assert parts.config.method == config.method
    assert [layer.name for layer in parts.network.layers][-1] == "fc"
    meta = parts.init()
    assert meta.alpha.shape == (config.method.inner_steps, len(parts.network.layers))
    grouped = [name for group in parts.param_groups(meta, 1e-3) for name in group["names"]]
    assert sorted(grouped) == sorted(meta.learned)


@pytest.mark.parametrize("name", [name for name in recipe_names() if is_learner(name)])
def test_a_recipe_makes_a_learner_that_learns_something_and_asks_for_weights_where_it_needs_them(
    name: str,
) -> None:
    config, spec = config_of(name)
    parts = assemble_learner(config, spec)
    meta = parts.learner.init(config.seed)
    grouped = [name for group in parts.param_groups(meta, 1e-3) for name in group["names"]]
    assert sorted(grouped) == sorted(meta.learned) != []
    assert meta.learned.keys().isdisjoint(meta.fixed)
    assert bool(parts.learner.needs_weights) == ("cnaps" in name or "norm" in config.architecture)
    if parts.learner.needs_weights:
        with pytest.raises(ConfigError, match=r"train\.initial_weights: .*; name a file"):
            parts.init()


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("vit", r"^backbone: vit: layer \S+: expected conv, linear, GroupNorm or BatchNorm, got LayerNorm$"),
        (
            "motion-cnn",
            r"^backbone: motion-cnn: .* takes samples \(channels, length\), .* got \(1, 28, 28\)$",
        ),
    ],
)
def test_a_backbone_that_cannot_be_meta_trained_or_fed_is_refused_in_one_line(
    backbone: str, message: str
) -> None:
    config = RunConfig.from_table(read_recipe("pmeta-conv4-glyphs"), {"backbone": backbone})
    with pytest.raises(ConfigError, match=message):
        assemble(config, GREY28)


def test_a_recipe_may_choose_the_backbones_options() -> None:
    table = read_recipe("pmeta-conv4-glyphs")
    config = RunConfig.from_table(table, {"architecture.pool": "average"})
    parts = assemble(config, GREY28)
    assert any(isinstance(part, nn.AvgPool2d) for part in parts.network.module.modules())
    assert RunConfig.from_table(read_toml(write_toml(to_table(config)), "")) == config
    for name, value, message in (
        ("width", 0.5, "backbone: conv4: conv4 has no option 'width'; it has norm, pool"),
        ("pool", 3, "architecture.pool: expected text, got 3"),
        ("pool", "min", "pool must be one of max, average, got 'min'"),
    ):
        with pytest.raises(ConfigError, match=message):
            assemble(RunConfig.from_table(table, {f"architecture.{name}": value}), GREY28)


def test_the_seed_makes_the_initial_weights() -> None:
    table = read_recipe("pmeta-conv4-glyphs")
    first, again, other = (
        assemble(RunConfig.from_table(table, {"seed": seed}), GREY28).network.weights()["conv1.weight"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batches_are_the_samplers_tasks_a_few_at_a_time(recipe: Path, stripes: Path) -> None:
    config = RunConfig.from_table(read_recipe(str(recipe)), {"data.root": str(stripes)})
    sampler = fixed_sampler(load_split(config.data, "val"), config.task)
    batches = list(draw_all(sampler, 7, chunk=3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    whole = sampler.batch(0, 7)
    np.testing.assert_array_equal(torch.cat([batch.support_x for batch in batches]), whole.support_x)
    np.testing.assert_array_equal(torch.cat([batch.query_y for batch in batches]), whole.query_y)
    assert torch.equal(draw(sampler, 3, 3).query_x, batches[1].query_x)


def test_an_outer_step_draws_a_chunk_of_tasks_at_a_time(
    recipe: Path, stripes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"data.root": str(stripes), "train.tasks_per_step": 5, "method.tasks_per_chunk": 2}
    config = RunConfig.from_table(read_recipe(str(recipe)), own)
    sampler = training_sampler(config)
    parts = assemble(config, sampler.spec)
    meta = parts.init()
    expected = parts.method.meta_gradient(meta, draw(sampler, 10, 5), 0.0)
    asked, batch = list[tuple[int, int]](), sampler.batch
    monkeypatch.setattr(
        sampler, "batch", lambda first, count: asked.append((first, count)) or batch(first, count)
    )
    found = parts.meta_gradient(meta, sampler, 10, 0.0)
    assert asked == [(10, 2), (12, 2), (14, 1)]
    assert found.metrics == expected.metrics
    assert all(torch.equal(value, expected.grads[name]) for name, value in found.grads.items())


def test_training_tasks_may_have_other_shots_and_queries_than_those_a_run_is_judged_by(
    recipe: Path, stripes: Path
) -> None:
    own = {"data.root": str(stripes), "task.training_shots": 3, "task.training_queries": 1}
    config = RunConfig.from_table(read_recipe(str(recipe)), own)
    ways, task = config.task.ways, config.task
    training, judged = training_sampler(config), fixed_sampler(load_split(config.data, "val"), task)
    assert draw(training, 0, 1).support_y.shape == (1, 3 * ways)
    assert draw(training, 0, 1).query_y.shape == (1, ways)
    assert draw(judged, 0, 1).support_y.shape == (1, task.shots * ways)
    with pytest.raises(ConfigError, match=r"task\.training_shots must be at least 1, or none, got 0"):
        RunConfig.from_table(read_recipe(str(recipe)), {"task.training_shots": 0})


def test_small_tasks_are_evaluated_eight_at_a_time_and_tasks_of_large_photographs_alone(
    recipe: Path, stripes: Path
) -> None:
    config = RunConfig.from_table(read_recipe(str(recipe)), {"data.root": str(stripes)})
    sampler = fixed_sampler(load_split(config.data, "val"), config.task)
    assert [len(batch) for batch in draw_all(sampler, 10)] == [8, 2]
    for side, chunk in ((256, 1), (2048, 1), (128, 5)):
        spec = replace(sampler.dataset.spec, height=side, width=side)
        images = np.zeros((5, side, side, 1), np.uint8)
        sampler.dataset = replace(
            sampler.dataset, classes=(images,) * 3, class_names=("a", "b", "c"), spec=spec
        )
        assert chunk_of(sampler) == chunk


FAKE_TIMM = """
from torch import nn

def create_model(name, pretrained, num_classes, in_chans, **options):
    assert not pretrained
    if name != "tiny":
        raise RuntimeError(f"Unknown model ({name})")
    return nn.Sequential(nn.Conv2d(in_chans, options.get("width", 8), 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(options.get("width", 8), num_classes))
"""


@pytest.fixture
def fake_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of that name with one model."""
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text(FAKE_TIMM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    yield
    sys.modules.pop("timm", None)


def timm_config(name: str, **changes: object) -> RunConfig:
    table = {"data": {"name": "glyphs"}, "method": {"name": "protonets"}, "backbone": name}
    return RunConfig.from_table(table, changes)


def test_a_backbone_of_timm_is_built_by_timm_from_the_seed(fake_timm: None) -> None:
    config = timm_config("timm:tiny", **{"architecture.width": 16})
    first, again = (assemble_learner(config, GREY28).init().learned for _ in range(2))
    assert first["extractor.0.weight"].shape == (16, 1, 3, 3)
    assert torch.equal(first["extractor.0.weight"], again["extractor.0.weight"])
    other = assemble_learner(timm_config("timm:tiny", seed=1, **{"architecture.width": 16}), GREY28).init()
    assert not torch.equal(first["extractor.0.weight"], other.learned["extractor.0.weight"])
    with pytest.raises(
        ConfigError, match=r"backbone: timm:huge: timm cannot make it: Unknown model \(huge\)"
    ):
        assemble_learner(timm_config("timm:huge"), GREY28)


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_its_backbones_are_refused_in_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"^backbone: timm:tiny: it needs the package timm: pip install timm$"
    ):
        assemble_learner(timm_config("timm:tiny"), GREY28)
