"""Updating ratios and the similarity of scores: against gamma written out entry by entry."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from edge_adapt.cloud import ConfigError, TrainedRun
from edge_adapt.cloud.cli import main
from edge_adapt.cloud.inner.base import Meta, MethodConfig
from edge_adapt.cloud.inner.device import adapt
from edge_adapt.cloud.outer.pmeta import PMeta
from edge_adapt.cloud.selection.figures import cosine, selection, selection_of, updated_share
from edge_adapt.cloud.selection.picture import selection_picture
from PIL import Image
from torch.nn import functional as F

from .plain import gamma_of_weight, random_batch, small_network


def prepared(**settings):
    network = small_network()
    config = MethodConfig(inner_steps=2, inner_step_size=0.3, **settings)
    meta = PMeta(network, config).init(seed=5).to(torch.float64)
    meta.learned["alpha"][:, 0] = 0
    meta.learned["alpha"][0, 1] = 0
    return network, config, meta


@pytest.mark.parametrize("name", ["conv1", "norm1", "conv2"])
def test_shares_and_cosines_are_those_of_gamma_entry_by_entry(name):
    network = small_network()
    index = [layer.name for layer in network.layers].index(name)
    layer, part = network.layers[index], network.module.get_submodule(name)
    generator = torch.Generator().manual_seed(index)
    fw, bw = (
        torch.rand(8, channels, generator=generator).double().sub(0.4).relu()
        for channels in (layer.channels_in, layer.channels_out)
    )
    gammas = [gamma_of_weight(part, *pair).flatten() for pair in zip(fw, bw, strict=True)]
    expected = torch.stack([(gamma != 0).double().mean() for gamma in gammas])
    torch.testing.assert_close(updated_share(layer, fw, bw), expected, rtol=1e-12, atol=0)
    found = cosine(layer, (fw[:4] + 0.01, bw[:4]), (fw[4:] + 0.01, bw[4:] + 0.01))
    for n in range(4):
        first = gamma_of_weight(part, fw[n] + 0.01, bw[n]).flatten()
        second = gamma_of_weight(part, fw[4 + n] + 0.01, bw[4 + n] + 0.01).flatten()
        torch.testing.assert_close(found[n], F.cosine_similarity(first, second, dim=0, eps=0.0))


def test_scores_that_leave_nothing_of_a_norm_are_like_no_others():
    layer = small_network().layers[1]
    left, right = torch.tensor([[2.0, 2, 0, 0]]), torch.tensor([[0.0, 0, 2, 2]])
    assert updated_share(layer, left, right).tolist() == [0.0]
    assert cosine(layer, (left, right), (left, left)).tolist() == [0.0]
    assert cosine(layer, (left, left), (left, left)).tolist() == [pytest.approx(1.0)]


def test_a_selection_is_the_mean_over_all_samples_of_all_tasks():
    network, config, meta = prepared(rho_bw=0.3)
    batch = random_batch()
    found = selection_of(network, config, meta, [batch.chunk(0, 2), batch.chunk(2, 3)])
    kept = adapt(network, config, meta, batch.support_x, batch.support_y).kept
    for step, ratios in enumerate(found.ratios):
        for layer, ratio in zip(network.layers, ratios, strict=True):
            if f"{layer.name}.fw" not in kept[step]:
                expected = [1.0 if layer.is_output else 0.0]
            else:
                part = network.module.get_submodule(layer.name)
                fw, bw = (kept[step][f"{layer.name}.{side}"].flatten(0, 1).double() for side in ("fw", "bw"))
                pairs = zip(fw, bw, strict=True)
                expected = [float(gamma_of_weight(part, *pair).mean()) for pair in pairs]
            assert ratio.mean == pytest.approx(np.mean(expected), rel=1e-12)
            assert ratio.std == pytest.approx(np.std(expected), abs=1e-12)
    assert found.tasks == 3
    assert [value is None for value in found.similarity] == [True, True, False, False, True]
    assert all(0 <= value.mean <= 1 + 1e-12 for value in found.similarity if value is not None)


def test_without_attention_a_layer_is_updated_or_not():
    network, config, meta = prepared(attention=False)
    batch = random_batch()
    found = selection_of(network, config, meta, [batch])
    assert [[ratio.mean for ratio in row] for row in found.ratios] == [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]
    assert found.similarity == (None,) * 5


def test_static_scores_are_the_same_for_every_sample():
    network, config, meta = prepared(attention=False, channel_alpha=True)
    found = selection_of(network, config, meta, [random_batch()])
    values = [value for value in found.similarity if value is not None]
    assert len(values) == 2
    assert all(value.mean == pytest.approx(1.0, rel=1e-12) for value in values)


def test_the_command_prints_a_table_or_json_and_draws(finished: TrainedRun, tmp_path: Path):
    picture = tmp_path / "selection.png"
    arguments = ["selection", str(finished.path), "--tasks", "3"]
    text = CliRunner().invoke(main, [*arguments, "-o", str(picture)]).output
    assert text.splitlines()[0].split() == ["layer", "step", "1", "step", "2", "cosine"]
    assert len(text.splitlines()) == 1 + len(finished.layers)
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert found["layers"] == [layer.name for layer in finished.layers]
    assert found["ratios"][0][-1] == {"mean": 1.0, "std": 0.0}
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.width > 2 * image.height


def test_a_run_that_updates_one_layer_can_be_drawn(finished: TrainedRun, tmp_path: Path):
    alpha = torch.zeros_like(finished.alpha)
    alpha[:, -1] = 0.1
    found = selection(replace(finished, meta=Meta(finished.meta.learned, {"alpha": alpha})), tasks=1)
    assert set(found.similarity) == {None}
    selection_picture(found, tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 0


def test_no_tasks_are_refused(finished: TrainedRun):
    with pytest.raises(ConfigError, match="tasks must be at least 1, got 0"):
        selection(finished, tasks=0)


def test_one_sample_has_no_likeness_and_masked_maps_have_no_shares(finished: TrainedRun):
    network, config, meta = prepared()
    batch = random_batch(1, 1)
    assert set(selection_of(network, config, meta, [batch]).similarity) == {None}
    method = replace(finished.config.method, attention_masks="maps")
    masked = replace(finished, config=replace(finished.config, method=method))
    with pytest.raises(ConfigError, match="its attention masks maps, not gradients"):
        selection(masked)
