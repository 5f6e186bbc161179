"""Costs of step sizes, the proximal step, and the choice of layers to freeze for good."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from edge_adapt.cloud.inner.base import Meta, MethodConfig
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.outer import METHODS, MetaGradient
from edge_adapt.cloud.outer.penalty import PENALTIES, layers_within
from edge_adapt.edge.cost import peak_dynamic_bytes

from .plain import random_batch, small_network

CONV4 = Network(build_backbone("conv4", (1, 28, 28), 5, 0), (1, 28, 28))
TABLE = CONV4.layers
DENSE = [True] * 9


def test_layer_costs_are_input_and_weight_words_with_mean_one():
    alpha = torch.ones(2, 9, dtype=torch.float64)
    inputs = torch.tensor([784, 25088, 6272, 6272, 1568, 1568, 288, 288, 32], dtype=torch.float64)
    weights = torch.tensor([320, 64, 9248, 64, 9248, 64, 9248, 64, 165], dtype=torch.float64)
    for name, words in {"activations": inputs, "activations+gradients": inputs + weights}.items():
        gradient = PENALTIES[name].gradient(TABLE, alpha)
        torch.testing.assert_close(gradient, (words / words.mean()).expand(2, 9))
    assert not PENALTIES["none"].gradient(TABLE, alpha).any()


def test_peak_penalty_falls_on_the_largest_step_and_sums_to_the_dense_plan():
    alpha = torch.tensor([[0.1] * 9, [0.2] * 9, [0.1] * 8 + [0.3]])
    gradient = PENALTIES["peak"].gradient(TABLE, alpha)
    assert ((gradient > 0).sum(0) == 1).all()
    assert gradient[1, :8].gt(0).all()
    assert gradient[2, 8] > 0
    head = peak_dynamic_bytes(TABLE, [False] * 8 + [True])
    above_conv4 = peak_dynamic_bytes(TABLE, [False] * 6 + [True] * 3)
    above_norm4 = peak_dynamic_bytes(TABLE, [False] * 7 + [True] * 2)
    ratio = float(gradient[1, 6] / gradient[1, 7])
    assert ratio == pytest.approx((above_conv4 - above_norm4) / (above_norm4 - head), rel=1e-5)
    assert float(gradient.sum(0).mean()) == pytest.approx(1.0)


def test_under_plain_sgd_penalty_and_clamp_are_the_proximal_step():
    """argmin_a (a - (a0 - b*g))^2 / 2 + b*lambda*c*a over a >= 0, on a grid."""
    network = small_network()
    config = MethodConfig(inner_steps=2, penalty="activations", penalty_strength=0.4, warmup_fraction=0.0)
    method = METHODS["p-meta"](network, config)
    plain = METHODS["p-meta"](network, replace(config, penalty="none"))
    meta, batch, rate = method.init(0).to(torch.float64), random_batch(), 0.15
    result = method.meta_gradient(meta, batch, 0.5)
    free = plain.meta_gradient(meta, batch, 0.5).grads["alpha"]
    moved = Meta({**meta.learned, "alpha": meta.alpha - rate * result.grads["alpha"]}, meta.fixed)
    alpha = method.after_step(moved, result, 0.5).alpha
    costs = PENALTIES["activations"].gradient(network.layers, meta.alpha)
    grid = torch.linspace(0, 2, 400_001, dtype=torch.float64)
    for k, index in product(range(2), range(5)):
        target = meta.alpha[k, index] - rate * free[k, index]
        objective = (grid - target).square() / 2 + rate * 0.4 * costs[k, index] * grid
        assert float(alpha[k, index]) == pytest.approx(float(grid[objective.argmin()]), abs=6e-6)
    assert (alpha == 0).any()


def test_there_is_no_penalty_during_the_warm_up():
    network = small_network()
    config = MethodConfig(inner_steps=2, penalty="activations", penalty_strength=5.0, warmup_fraction=0.1)
    method = METHODS["p-meta"](network, config)
    free = METHODS["p-meta"](network, replace(config, penalty="none"))
    meta, batch = method.init(0).to(torch.float64), random_batch(tasks=1)
    early, late = (method.meta_gradient(meta, batch, progress).grads["alpha"] for progress in (0.099, 0.1))
    expected = free.meta_gradient(meta, batch, 0.0).grads["alpha"]
    assert torch.equal(early, expected)
    costs = PENALTIES["activations"].gradient(network.layers, meta.alpha)
    torch.testing.assert_close(late, expected + 5.0 * costs)


@pytest.mark.parametrize("target", [0.4, 0.58, 0.7, 0.99, 1.0])
def test_freezing_meets_the_target_and_keeps_the_output_layer(target):
    mask = layers_within(TABLE, DENSE, [0.1 * i for i in range(9)], target)
    assert peak_dynamic_bytes(TABLE, mask) <= target * peak_dynamic_bytes(TABLE, DENSE)
    assert mask[-1]
    assert mask == DENSE or target < 1.0


def test_layers_with_benefit_outlive_layers_without():
    benefit = [0.0, 0.0, 0.0, 0.0, 0.0, 5.0, 3.0, 0.0, 1.0]
    assert layers_within(TABLE, DENSE, benefit, 0.48)[6]
    benefit[4], benefit[6] = benefit[6], benefit[4]
    mask = layers_within(TABLE, DENSE, benefit, 0.48)
    assert mask[4]
    assert not mask[6]


@pytest.mark.parametrize("target", [0.48, 0.55, 0.6, 0.7])
def test_no_frozen_layer_could_be_given_back_within_the_target(target):
    dense = peak_dynamic_bytes(TABLE, DENSE)
    for seed in range(20):
        benefit = np.random.default_rng(seed).uniform(0, 1, 9).tolist()
        mask = layers_within(TABLE, DENSE, benefit, target)
        for index in range(9):
            more = [on or i == index for i, on in enumerate(mask)]
            assert mask[index] or peak_dynamic_bytes(TABLE, more) > target * dense


def test_a_layer_that_was_not_updated_is_not_given_back():
    updated = [False, *DENSE[1:]]
    assert not layers_within(TABLE, updated, [9.0] * 9, 0.99)[0]


def test_a_target_that_no_mask_meets_is_refused_with_the_smallest_that_can_be():
    with pytest.raises(ValueError, match=r"target_fraction 0\.2 .*updating only fc needs 0\.363"):
        METHODS["p-meta"](CONV4, MethodConfig(penalty="peak", target_fraction=0.2))


def test_layers_frozen_by_the_peak_penalty_stay_frozen_whatever_the_optimizer_does():
    network = small_network()
    config = MethodConfig(inner_steps=2, penalty="peak", target_fraction=0.8, prune_at=0.5)
    method = METHODS["p-meta"](network, config)
    meta, batch = method.init(0).to(torch.float64), random_batch(tasks=2)
    result = method.meta_gradient(meta, batch, 0.4)
    before = method.after_step(meta, result, 0.49)
    assert (before.alpha > 0).all()
    assert not method.eligible(before, 0.49)
    after = method.after_step(before, result, 0.5)
    closed = after.fixed["open"] == 0
    assert 0 < int(closed.sum()) < 5
    assert method.eligible(after, 0.5)
    for _ in range(2):
        result = method.meta_gradient(after, batch, 0.6)
        assert not result.grads["alpha"][:, closed].any()
        pushed = Meta({**after.learned, "alpha": after.alpha + 1.0}, after.fixed)
        after = method.after_step(pushed, result, 0.6)
        assert not after.alpha[:, closed].any()
        assert (after.alpha[:, ~closed] > 0).all()


def test_benefit_is_a_running_mean_of_the_first_order_decrease():
    method = METHODS["p-meta"](small_network(), MethodConfig(inner_steps=2))
    meta = method.init(0)
    result = MetaGradient({}, {}, torch.arange(5.0))
    for _ in range(3):
        meta = method.after_step(meta, result, 0.0)
    torch.testing.assert_close(meta.fixed["benefit"], torch.arange(5.0) * (1 - 0.98**3))
