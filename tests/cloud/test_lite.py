"""LITE's estimator: values exact, gradients unbiased over all subsets, draws that repeat."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.lite import (
    CHECKPOINTED,
    LiteConfig,
    Subset,
    draw,
    estimate,
    exact_values,
    generator_of,
    shares,
    values_with_graph,
)
from edge_adapt.cloud.tasks.task import Stored
from hypothesis import given
from hypothesis import strategies as st

N = 6
LABELS = torch.tensor([0, 1, 1, 0, 1, 1])


def every_subset(h):
    return [
        Subset(torch.tensor(rows), torch.full((h,), N / h, dtype=torch.float64))
        for rows in combinations(range(N), h)
    ]


def loss_of(features):
    """Not linear in anything: means and second moments, as class means and covariances are."""
    mean = features.mean(0)
    spread = (features - mean).T @ (features - mean) / (len(features) - 1)
    return (mean**3).sum() + torch.logdet(spread + torch.eye(len(mean)).double())


def problem():
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    return weights, torch.randn(N, 4, generator=generator, dtype=torch.float64)


def gradient(weights, x, subset=None, others=None):
    features = torch.tanh(x @ weights)
    if subset is not None:
        control = None if others is None else torch.tanh(others @ weights).mean(0)
        features = estimate(features.detach(), torch.tanh(x[subset.rows] @ weights), subset, control)
    return torch.autograd.grad(loss_of(features), weights)[0]


@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("h", [1, 2, 5, 6])
def test_the_mean_gradient_over_all_subsets_is_the_gradient(h, control):
    weights, x = problem()
    others = 1 + x[:4] ** 2 if control else None
    found = torch.stack([gradient(weights, x, subset, others) for subset in every_subset(h)]).mean(0)
    torch.testing.assert_close(found, gradient(weights, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("control", [False, True])
def test_what_samples_and_control_variate_share_has_no_noise(control):
    """A shift of all features, which their covariance does not see: plain LITE sees it through the samples in H."""
    _, x = problem()
    shift, found = torch.zeros(4, dtype=torch.float64, requires_grad=True), []
    for subset in every_subset(2):
        features = estimate(x, x[subset.rows] + shift, subset, shift if control else None)
        centred = features - features.mean(0)
        found.append(torch.autograd.grad(torch.logdet(centred.T @ centred + torch.eye(4)), shift)[0])
    largest = float(torch.stack(found).abs().max())
    assert largest < 1e-12 if control else largest > 0.1


def test_values_are_exact_and_gradients_of_one_subset_are_not():
    weights, x = problem()
    values = torch.tanh(x @ weights)
    subset = every_subset(2)[4]
    found = estimate(values.detach(), torch.tanh(x[subset.rows] @ weights), subset)
    assert torch.equal(found, values)
    assert (gradient(weights, x, subset) - gradient(weights, x)).abs().max() > 0.1


def test_a_stratified_draw_is_unbiased_with_classes_of_different_sizes():
    weights, x = problem()
    subsets = {}
    for seed in range(200):
        subset = draw(N, 3, torch.Generator().manual_seed(seed), LABELS)
        subsets[tuple(subset.rows.tolist())] = subset
    assert len(subsets) == 2 * 6  # one of two samples of class 0, two of four of class 1
    for subset in subsets.values():
        assert LABELS[subset.rows].tolist().count(0) == 1
        assert subset.scale.tolist() == [2.0] * 3
    found = torch.stack([gradient(weights, x, subset) for subset in subsets.values()]).mean(0)
    torch.testing.assert_close(found, gradient(weights, x), rtol=0, atol=1e-12)


def test_scales_of_a_stratified_draw_are_its_classes_own():
    labels = torch.tensor([0] * 8 + [1] * 2)
    subset = draw(10, 4, torch.Generator().manual_seed(0), labels)
    assert [(int(labels[r]), float(s)) for r, s in zip(subset.rows, subset.scale, strict=True)] == [
        (0, pytest.approx(8 / 3)), (0, pytest.approx(8 / 3)), (0, pytest.approx(8 / 3)), (1, 2.0),
    ]  # fmt: skip


def test_fewer_than_one_sample_of_each_class_are_drawn_from_all():
    found = Counter()
    for seed in range(400):
        subset = draw(N, 1, torch.Generator().manual_seed(seed), LABELS)
        assert subset.scale.tolist() == [6.0]
        found[int(subset.rows)] += 1
    assert sorted(found) == list(range(N))
    assert all(abs(count - 400 / N) < 5 * (400 / N) ** 0.5 for count in found.values())


def test_every_subset_is_equally_likely():
    draws = 3000
    found = Counter(
        tuple(draw(N, 2, torch.Generator().manual_seed(seed)).rows.tolist()) for seed in range(draws)
    )
    assert len(found) == 15
    assert all(abs(count - draws / 15) < 5 * (draws / 15) ** 0.5 for count in found.values())


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.data())
def test_shares_use_up_h_and_fit_into_every_class(sizes, data):
    h = data.draw(st.integers(len(sizes), sum(sizes)))
    found = shares(sizes, h)
    assert sum(found) == h
    assert all(1 <= own <= size for own, size in zip(found, sizes, strict=True))


def test_h_above_the_support_set_is_refused():
    with pytest.raises(
        ValueError,
        match=r"^lite\.h: 12 asked for, but a task's support set has 10 samples; set at most that, or none$",
    ):
        draw(10, 12, torch.Generator())


def test_draws_depend_on_the_task_and_on_the_place_only():
    places = [
        ((3, 7), (0, 0)),
        ((3, 7), (1, 0)),
        ((3, 7), (0, 1)),
        ((3, 8), (0, 0)),
        ((3, 7), (0, 0, 0)),
        ((3, 7, 0), (0,)),
    ]
    firsts = [int(generator_of(key, *where).initial_seed()) for key, where in places]
    assert len(set(firsts)) == len(places)
    again = generator_of((3, 7), 0, 0)
    assert torch.equal(draw(50, 5, again).rows, draw(50, 5, generator_of((3, 7), 0, 0)).rows)


class Watched(Stored):
    """Samples that note how many were taken at a time."""

    def take(self, rows):
        taken.append(len(rows))
        return super().take(rows)


taken: list[int] = []


@pytest.mark.parametrize(("chunk", "sizes"), [(4, [4, 4, 2]), (None, [10]), (20, [10])])
def test_values_without_graph_are_computed_a_chunk_at_a_time(chunk, sizes):
    taken.clear()
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.ones(3, requires_grad=True)
    values = exact_values(lambda part: part * weights, Watched(x), chunk)
    assert taken == sizes
    assert torch.equal(values, x)
    assert not values.requires_grad


def test_checkpointing_keeps_the_gradient_and_computes_a_few_samples_at_a_time():
    weights, x = problem()
    sizes = []

    def forward(part):
        sizes.append(len(part))
        return torch.tanh(part @ weights)

    plain, again = (
        torch.autograd.grad(loss_of(values_with_graph(forward, x, recompute)), weights)[0]
        for recompute in (False, True)
    )
    torch.testing.assert_close(again, plain, rtol=0, atol=1e-14)
    assert sizes[0] == N
    assert sorted(sizes[1:]) == 2 * [N - CHECKPOINTED] + 2 * [CHECKPOINTED]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("h", 0, r"lite\.h: expected at least 1, or none, got 0"),
        ("query_batch", -1, r"lite\.query_batch: expected at least 1, or none, got -1"),
        ("chunk", 0, r"lite\.chunk: expected at least 1, or none, got 0"),
        ("precision", "float16", r"lite\.precision: expected one of float32, bfloat16, got 'float16'"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(setting, value, message):
    with pytest.raises(ConfigError, match=message):
        LiteConfig(**{setting: value})


def test_autocast_computes_matrix_products_in_the_precision_asked_for():
    a = torch.ones(2, 2)
    for precision in ("float32", "bfloat16"):
        with LiteConfig(precision=precision).autocast(a.device):
            assert (a @ a).dtype is getattr(torch, precision)
