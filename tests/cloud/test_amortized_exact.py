"""LITE in the amortized learners: the mean gradient over all choices of H is the gradient, in float64."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from edge_adapt.cloud.amortized import LEARNERS
from edge_adapt.cloud.amortized.episode import ENCODER, FEATURES
from edge_adapt.cloud.lite import LiteConfig, Subset

from .tiny import LABELS, learner_of, task

N, H = len(LABELS), 2
ALL = [
    Subset(torch.tensor(rows), torch.full((H,), N / H, dtype=torch.float64))
    for rows in combinations(range(N), H)
]
WHOLE = Subset(torch.arange(N), torch.ones(N, dtype=torch.float64))
STRATIFIED = [
    Subset(torch.tensor([a, b, 5]), torch.tensor([2.0, 3.0, 1.0]).double()) for a in (0, 3) for b in (1, 2, 4)
]


def relative(found, expected):
    """Largest difference, relative to each tensor's largest entry."""
    for name, value in expected.items():
        assert float(value.abs().max()) > 1e-6, f"{name} has no gradient to compare with"
    return max(
        float((found[name] - value).abs().max() / value.abs().max()) for name, value in expected.items()
    )


def mean_gradient(learner, meta, choices):
    """Mean over pairs (H of the encoder, H of the features)."""
    drawn, total = task(), {name: torch.zeros_like(value) for name, value in meta.learned.items()}
    exact = learner.exact(meta, drawn)
    for encoder, features in choices:
        subsets = {ENCODER: encoder, FEATURES: features}
        grads = learner.task_gradient(meta, drawn, exact, subsets.__getitem__).grads
        total = {name: total[name] + grad / len(choices) for name, grad in grads.items()}
    return total


CASES = [
    ("protonets", {}, [(None, h) for h in ALL]),
    ("protonets", {}, [(None, h) for h in STRATIFIED]),
    ("simple-cnaps", {}, [(WHOLE, h) for h in ALL]),
    ("simple-cnaps", {}, list(product(ALL, ALL))),
    ("cnaps", {}, list(product(ALL, ALL))),
    ("cnaps", {}, list(product(STRATIFIED, STRATIFIED))),
]


@pytest.mark.parametrize("control", [False, True], ids=["plain", "control variate"])
@pytest.mark.parametrize(
    ("name", "settings", "choices"), CASES, ids=[f"{name}-{len(choices)}" for name, _, choices in CASES]
)
def test_the_mean_gradient_over_all_choices_is_the_gradient(name, settings, choices, control):
    learner, meta = learner_of(name, LiteConfig(control_variate=control), **settings)
    expected = learner.task_gradient(meta, task()).grads
    assert relative(mean_gradient(learner, meta, choices), expected) < 1e-10
    one = mean_gradient(learner, meta, choices[:1])
    assert relative(one, expected) > 0.1  # a single choice is not


@pytest.mark.parametrize("name", ["cnaps", "simple-cnaps"])
def test_one_h_for_both_levels_would_be_biased(name):
    learner, meta = learner_of(name)
    expected = learner.task_gradient(meta, task()).grads
    assert relative(mean_gradient(learner, meta, [(h, h) for h in ALL]), expected) > 0.05


@pytest.mark.parametrize("name", LEARNERS)
def test_the_control_variate_is_there_unless_it_is_switched_off(name):
    found = []
    for setting in (None, True, False):
        learner, meta = learner_of(name, LiteConfig(h=2, control_variate=setting))
        found.append(learner.task_gradient(meta, task()).grads)
    assert relative(found[0], found[1]) == 0
    assert relative(found[0], found[2]) > 0.01


@pytest.mark.parametrize("settings", [{}, {"stratified": True}, {"control_variate": False}], ids=str)
@pytest.mark.parametrize("name", LEARNERS)
def test_all_samples_in_h_give_the_exact_gradient(name, settings):
    learner, meta = learner_of(name)
    expected = learner.task_gradient(meta, task())
    learner, _ = learner_of(name, LiteConfig(h=N, chunk=4, **settings))
    found = learner.task_gradient(meta, task())
    assert relative(found.grads, expected.grads) < 1e-12
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-12)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_gradient_is_that_of_finite_differences_along_itself(name):
    penalty = {"film_penalty": 0.0} if "film_penalty" in LEARNERS[name].uses else {}
    learner, meta = learner_of(name, **penalty)
    grads = learner.task_gradient(meta, task()).grads
    squared, losses, step = sum(float(g.square().sum()) for g in grads.values()), [], 1e-5
    for sign in (1, -1):
        moved = {key: value + sign * step * grads[key] for key, value in meta.learned.items()}
        logits = learner.logits(type(meta)(moved, meta.fixed), task())
        losses.append(float(torch.nn.functional.cross_entropy(logits, task().query_y)))
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(squared, rel=1e-6)
