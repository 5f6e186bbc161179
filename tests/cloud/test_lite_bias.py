"""The study of LITE's gradient: a short one now, and the committed rows of the long one."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from edge_adapt.cloud.amortized import LEARNERS

from ..conftest import BENCHMARKS, benchmark_module

benchmark_module("machine")  # which the others import
benchmark_module("trainings")
picture = benchmark_module("lite_rmse_picture")
problems = benchmark_module("lite_problems")
gradients = benchmark_module("lite_draws")
study = benchmark_module("lite_bias")

LITE = ("LITE", "LITE with control variate")
DRAWS = 300


@pytest.fixture(scope="module", params=LEARNERS)
def of(request):
    return problems.characters(request.param, 0, (20, 5))


@pytest.fixture(scope="module")
def found(of):
    return gradients.estimators(of)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("name", LITE)
def test_gradients_that_are_put_together_are_as_far_away_as_those_of_the_learner(of, found, name, stratified):
    learner = of.with_lite(h=10, stratified=stratified, control_variate=name != "LITE")
    exact, estimator = gradients.flat(of.exact()), found[name]
    for index, drawn in enumerate(itertools.islice(estimator.draws(10, stratified), 3)):
        own = learner.task_gradient(of.meta, replace(of.task, key=(gradients.H, index))).grads
        expected = float((gradients.flat(own) - exact).norm())
        assert float((drawn - estimator.exact).norm()) == pytest.approx(expected, rel=1e-3)


def test_lite_is_unbiased_and_nearer_than_a_support_set_of_the_same_size():
    of = problems.characters("protonets", 0, (30, 0))
    errors = {
        name: study.errors_of(itertools.islice(one.draws(10, False), DRAWS), one.exact)
        for name, one in gradients.estimators(of).items()
    }
    for name in LITE:
        assert errors[name].bias <= errors[name].limit
        assert errors[name].rmse + errors[name].rmse_ci95 < errors["sub-sampled"].rmse
    assert errors["sub-sampled"].bias > errors["sub-sampled"].limit
    assert errors[LITE[1]].rmse < errors[LITE[0]].rmse


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
        rows = gradients.all_classes(labels, 5, False, torch.Generator().manual_seed(seed))
        assert sorted(labels[rows].tolist()) == [0, 1, 2, 3, 4]


def committed():
    return json.loads((BENCHMARKS / "results" / "lite_bias.json").read_text())


def estimator_of(row):
    return row["estimator"].partition(", ")[0]


def test_the_committed_rows_are_complete():
    """Every learner has its first task of each data set, and every task that was begun was finished."""
    rows = committed()
    names = [f"{name}, {kind}" for name, kind in itertools.product(study.ESTIMATORS, study.KINDS)]
    begun = {(row["data"], row["learner"], row["task"]) for row in rows}
    assert begun >= set(itertools.product(problems.SOURCES, LEARNERS, [0]))
    assert {study.key_of(row) for row in rows} == {
        (data, learner, measure, name, task, h)
        for data, learner, task in begun
        for measure, name, h in itertools.product(("rmse", "bias"), names, study.CHOICES)
    }
    small = [row for row in rows if row["data"] == "glyphs"]
    assert {(estimator_of(row) in LITE, row["draws"]) for row in small} == {(True, 5000), (False, 500)}


def test_no_bias_was_measured_where_lite_has_none_and_one_was_where_sub_sampling_has():
    rows = [row for row in committed() if row["measure"] == "bias" and row["data"] == "glyphs"]
    assert all((row["value"] <= row["limit"]) == (estimator_of(row) in LITE) for row in rows)


PLAIN, CONTROLLED = LITE
NOT_NEARER = {
    ("glyphs", 0, PLAIN, "uniform", 5),
    ("glyphs", 0, PLAIN, "stratified", 5),
    ("miniimagenet", 0, PLAIN, "uniform", 5),
    ("miniimagenet", 0, PLAIN, "stratified", 5),
    ("miniimagenet", 0, PLAIN, "stratified", 10),
    ("miniimagenet", 0, CONTROLLED, "uniform", 5),
    ("miniimagenet", 0, CONTROLLED, "stratified", 5),
    ("miniimagenet", 1, PLAIN, "uniform", 5),
    ("miniimagenet", 2, PLAIN, "uniform", 5),
    ("miniimagenet", 2, PLAIN, "stratified", 5),
}
"""All of Simple CNAPs: gradients through queries and support samples cancel, and plain LITE has noise on the latter."""


def test_where_lite_was_nearer_than_sub_sampling():
    found = {study.key_of(row): row["value"] for row in committed() if row["measure"] == "rmse"}
    farther = {
        (learner, data, task, *name.split(", "), h)
        for (data, learner, measure, name, task, h), value in found.items()
        if value > found[data, learner, measure, f"sub-sampled, {name.partition(', ')[2]}", task, h]
    }
    assert farther == {("simple-cnaps", *case) for case in NOT_NEARER}


def test_the_picture_is_complete_or_not_there(tmp_path):
    picture.draw_rmse(committed(), tmp_path / "rmse.png")
    assert (tmp_path / "rmse.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["rmse.png"]
