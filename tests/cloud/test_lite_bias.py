"""The study of LITE's gradient: a short one now, and the committed rows of the long one."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from edge_adapt.cloud.amortized import LEARNERS

from ..conftest import BENCHMARKS, benchmark_module

benchmark_module("machine")  # which the others import
benchmark_module("trainings")
picture = benchmark_module("lite_rmse_picture")
study = benchmark_module("lite_bias")

LITE = [name for name in study.ESTIMATORS if name.startswith("LITE")]
DRAWS = 150


@pytest.fixture(scope="module")
def of():
    return study.problem("protonets", (30, 0))


@pytest.mark.parametrize("kind", ["uniform", "stratified"])
def test_lite_is_unbiased_and_nearer_than_a_support_set_of_the_same_size(of, kind):
    exact, found = of.exact(), {}
    for name in ("LITE", "sub-sampled"):
        draws, stratified = study.ESTIMATORS[f"{name}, {kind}"]
        found[name] = study.errors_of(itertools.islice(draws(of, 10, stratified), DRAWS), exact)
    assert found["LITE"].bias <= found["LITE"].limit
    assert found["LITE"].rmse + found["LITE"].rmse_ci95 < found["sub-sampled"].rmse
    assert found["sub-sampled"].bias > found["sub-sampled"].limit


@pytest.mark.parametrize("stratified", [False, True])
def test_gradients_put_together_from_single_samples_are_those_of_the_draws(of, stratified):
    pairs = zip(study.put_together(of, 10, stratified), study.each_draw(of, 10, stratified), strict=True)
    for found, expected in itertools.islice(pairs, 3):
        assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_errors_are_relative_to_the_norm_of_the_exact_gradient():
    exact = torch.tensor([3.0, 4.0])
    found = study.errors_of([exact + torch.tensor(e) for e in ([1.0, 0.0], [-1.0, 0.0], [0.0, 2.0])], exact)
    assert found.rmse == pytest.approx(math.sqrt(2) / 5)
    assert found.bias == pytest.approx(2 / 3 / 5)
    assert found.limit == pytest.approx(2 * math.sqrt(2) / 5 / math.sqrt(3))
    assert found.draws == 3


def test_sub_sampled_sets_have_every_class():
    labels = torch.arange(50) % 5
    for seed in range(20):
        rows = study.all_classes(labels, 5, False, torch.Generator().manual_seed(seed))
        assert sorted(labels[rows].tolist()) == [0, 1, 2, 3, 4]


def committed():
    return json.loads((BENCHMARKS / "results" / "lite_bias.json").read_text())


def test_the_committed_rows_are_complete():
    wanted = set(itertools.product(LEARNERS, ("rmse", "bias"), study.ESTIMATORS, study.CHOICES))
    assert {study.key_of(row) for row in committed()} == wanted
    for row in committed():
        if row["learner"] == "protonets" and row["estimator"] in LITE:
            assert row["draws"] == 5000
        assert row["draws"] >= 300


def test_no_bias_was_measured_where_lite_has_none_and_one_was_where_sub_sampling_has():
    rows = [row for row in committed() if row["measure"] == "bias"]
    assert all((row["value"] <= row["limit"]) == (row["estimator"] in LITE) for row in rows)


NOT_NEARER = {("simple-cnaps", 5)}
"""With one sample of each class in H the two levels of Simple CNAPs are noisier than a support set of five."""


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("kind", ["uniform", "stratified"])
def test_where_lite_was_nearer_than_sub_sampling(learner, kind):
    found = {
        (row["estimator"], row["h"]): row["value"]
        for row in committed()
        if row["measure"] == "rmse" and row["learner"] == learner
    }
    nearer = {h for h in study.CHOICES if found[f"LITE, {kind}", h] < found[f"sub-sampled, {kind}", h]}
    assert nearer == {h for h in study.CHOICES if (learner, h) not in NOT_NEARER}


def test_the_picture_is_complete_or_not_there(tmp_path):
    picture.draw_rmse(committed(), tmp_path / "rmse.png")
    assert (tmp_path / "rmse.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["rmse.png"]
