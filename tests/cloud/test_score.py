"""Scores and calibration against independent computations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from edge_adapt.cloud import ConfigError, TrainedRun, evaluate
from edge_adapt.cloud.inner.device import adapt
from edge_adapt.cloud.outer import Batch, Meta
from edge_adapt.cloud.parts.assemble import draw_all, fixed_sampler, load_split
from edge_adapt.cloud.parts.calibrate import calibrate, percentile
from edge_adapt.cloud.parts.score import interval, measure, score_before


def batches_of(run: TrainedRun, count: int) -> list[Batch]:
    return list(draw_all(fixed_sampler(load_split(run.config.data, "val"), run.config.task), count))


def with_alpha(run: TrainedRun, alpha: torch.Tensor) -> Meta:
    return Meta({name: value for name, value in run.meta.learned.items()}, {"alpha": alpha})


def test_the_interval_is_that_of_a_bernoulli_mean() -> None:
    hits = torch.tensor([1.0] * 30 + [0.0] * 70, dtype=torch.float64)
    assert interval(hits) == pytest.approx(1.96 * math.sqrt(0.3 * 0.7 / 99), rel=1e-4)


def test_without_step_sizes_adaptation_changes_nothing(finished: TrainedRun) -> None:
    meta = with_alpha(finished, torch.zeros_like(finished.alpha))
    score = measure(finished.parts.network, finished.parts.method.config, meta, batches_of(finished, 6))
    before = score_before(finished.parts.network, finished.meta, batches_of(finished, 6))
    module, hits = finished.module(), []
    for batch in batches_of(finished, 6):
        with torch.no_grad():
            hits.append(module(batch.query_x.flatten(0, 1)).argmax(1) == batch.query_y.flatten())
    expected = pytest.approx(float(torch.cat(hits).double().mean()), abs=1e-12)
    assert score.accuracy == expected
    assert before == expected


def test_the_number_of_tasks_per_batch_does_not_change_a_score(finished: TrainedRun) -> None:
    network, config = finished.parts.network, finished.parts.method.config
    batches = batches_of(finished, 6)
    singles = [batch.chunk(i, i + 1) for batch in batches for i in range(len(batch))]
    together = measure(network, config, finished.meta, batches)
    apart = measure(network, config, finished.meta, singles)
    assert (apart.accuracy, apart.tasks) == (together.accuracy, 6)
    assert apart.loss == pytest.approx(together.loss, abs=1e-5)


@pytest.mark.parametrize(
    ("counts", "expected"), [([3] * 1000, 3), ([1] * 99 + [7], 7), ([1] * 995 + [7] * 5, 1), ([5], 5)]
)
def test_the_cap_is_the_99th_percentile_and_a_count_that_occurs(counts: list[int], expected: int) -> None:
    assert percentile(torch.tensor(counts)) == expected
    assert expected == np.percentile(counts, 99, method="higher")


def test_caps_obey_the_bound_of_rho_and_vanish_where_a_layer_is_not_updated(finished: TrainedRun) -> None:
    alpha = torch.full_like(finished.alpha, 0.1)
    alpha[1, 2] = 0.0
    alpha[:, 4] = 0.0
    network, config = finished.parts.network, finished.parts.method.config
    caps = calibrate(network, config, with_alpha(finished, alpha), batches_of(finished, 6)).caps
    assert caps[4] is None
    assert caps[-1] is None
    assert caps[2] is not None
    assert caps[2][1] == 0
    for index, (layer, cap) in enumerate(zip(network.layers, caps, strict=True)):
        if cap is not None:
            bound = max(1, layer.channels_in - math.ceil(config.rho_fw * layer.channels_in))
            kept = [count for step, count in enumerate(cap) if alpha[step, index] != 0]
            assert all(1 <= count <= bound for count in kept)


def test_benefits_predict_the_loss_decrease_of_a_small_step(finished: TrainedRun) -> None:
    alpha = torch.zeros(2, len(finished.layers), dtype=torch.float64)
    alpha[0] = 1e-5
    alpha[1] = 1e-30  # a second step only to read the loss after the first
    network, meta = finished.parts.network, with_alpha(finished, alpha).to(torch.float64)
    config = replace(finished.parts.method.config, attention=False)
    batches = [batch.to(torch.float64) for batch in batches_of(finished, 6)]
    losses = torch.cat([adapt(network, config, meta, b.support_x, b.support_y).losses for b in batches])
    decrease = float((losses[:, 0] - losses[:, 1]).mean())
    predicted = sum(row[0] for row in calibrate(network, config, meta, batches).benefits)
    assert decrease == pytest.approx(predicted, rel=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 1}, r"tasks must be at least 2"),
        ({"split": "train"}, r"split must be one of val, test, got 'train'"),
        (
            {"data": "mnist"},
            r"expected NAME=DIR with NAME one of glyphs, .*, caltech101, folder, sinusoid, arrays, got 'mnist'",
        ),
    ],
)
def test_evaluation_refuses_what_it_cannot_score(
    options: dict[str, Any], message: str, finished: TrainedRun
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(finished, **options)
