"""Every recipe makes a network and a method that take all of its settings; batches are what was drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from edge_adapt.cloud.assemble import (
    assemble,
    chunk_of,
    draw,
    draw_all,
    fixed_sampler,
    load_split,
    training_sampler,
)
from edge_adapt.cloud.config import RunConfig
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.recipes import read_recipe, recipe_names
from edge_adapt.cloud.settings import to_table
from edge_adapt.cloud.tables import read_toml, write_toml
from edge_adapt.edge.inputs import InputSpec
from torch import nn

GREY28 = InputSpec(channels=1, height=28, width=28, mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_makes_a_network_and_a_method_that_ignores_none_of_its_settings(name: str) -> None:
    config = RunConfig.from_table(read_recipe(name))
    spec = config.data.spec() or GREY28
    parts = assemble(config, spec)
    assert parts.config.method == config.method
    assert [layer.name for layer in parts.network.layers][-1] == "fc"
    meta = parts.method.init(config.seed)
    assert meta.alpha.shape == (config.method.inner_steps, len(parts.network.layers))
    grouped = [name for group in parts.method.param_groups(meta, 1e-3) for name in group["names"]]
    assert sorted(grouped) == sorted(meta.learned)


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
