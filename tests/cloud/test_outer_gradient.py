"""Outer gradients against torch's plain double backward, finite differences and formulas, all in float64."""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.inner.base import Meta, MethodConfig
from edge_adapt.cloud.inner.unroll import Unroll
from edge_adapt.cloud.outer import METHODS
from edge_adapt.cloud.outer.gradient import clamped, step_weights
from torch.nn import functional as F

from .plain import PlainTask, plain_gradient, random_batch, small_network

UNNUMBERED = str.maketrans("", "", "12")
SETTINGS = {
    "maml": ("maml", {}),
    "anil": ("anil", {}),
    "boil": ("boil", {}),
    "maml++": ("maml++", {}),
    "maml++ checkpointed": ("maml++", {"checkpoint_steps": True}),
    "boil checkpointed": ("boil", {"checkpoint_steps": True}),
    "p-meta checkpointed": ("p-meta", {"checkpoint_steps": True, "tasks_per_chunk": 2}),
    "p-meta": ("p-meta", {}),
    "p-meta without attention": ("p-meta", {"attention": False}),
    "p-meta raw": ("p-meta", {"bw_input": "raw", "rho_fw": 0.5, "rho_bw": 0.3, "attention_ratio": 2}),
    "p-meta in chunks": ("p-meta", {"tasks_per_chunk": 2}),
    "p-meta per sample": ("p-meta", {"attention_over": "sample"}),
    "p-meta with a cap": ("p-meta", {"rho_fw": 0.0, "cap": 2}),
    "p-meta per sample with a cap": ("p-meta", {"attention_over": "sample", "rho_fw": 0.0, "cap": 2}),
    "p-meta per sample, raw": ("p-meta", {"attention_over": "sample", "bw_input": "raw", "rho_bw": 0.3}),
}


def prepared(case: str, smooth: bool = False, **changes):
    """Network, method and double-precision meta-parameters, step sizes all different."""
    name, settings = SETTINGS[case]
    network = small_network(smooth=smooth)
    method = METHODS[name](
        network, MethodConfig(inner_steps=3, inner_step_size=0.3, **{**settings, **changes})
    )
    meta = method.init(seed=3).to(torch.float64)
    table = meta.alpha * (
        1 + torch.linspace(-0.5, 0.5, meta.alpha.numel()).double().reshape(meta.alpha.shape)
    )
    meta = Meta({**meta.learned}, {**meta.fixed})
    (meta.learned if "alpha" in meta.learned else meta.fixed)["alpha"] = table
    return network, method, meta


def query_loss(network, config, meta, batch) -> float:
    """Mean over tasks after all inner steps, of which nothing is kept."""
    unroll = Unroll(network, config, meta.learned, range(len(network.layers)), batch, first_order=True)
    weights = unroll.weights
    for k, sizes in enumerate(meta.alpha):
        weights = {name: value.detach() for name, value in unroll.step(weights, sizes, k).weights.items()}
    return float(unroll.query(weights)[1]["query_loss"]) / len(batch)


@pytest.mark.parametrize("case", SETTINGS)
def test_batched_gradient_equals_plain_double_backward_task_by_task(case):
    network, method, meta = prepared(case)
    batch = random_batch()
    result = method.meta_gradient(meta, batch, progress=0.0)
    truth = plain_gradient(network, method.config, meta, batch)
    assert result.grads.keys() == truth.keys() == meta.learned.keys()
    for name, expected in truth.items():
        torch.testing.assert_close(result.grads[name], expected, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("case", ["maml", "maml++", "p-meta", "p-meta per sample"])
def test_gradient_equals_finite_differences_of_the_query_loss(case):
    """With rho = 0 and raw gradients nothing is clipped or detached; 5-point differences.

    A random direction through the tensors of one kind at once: every layer's convolutions, all fw.hidden.bias, ...
    """
    network, method, meta = prepared(case, smooth=True, rho_fw=0.0, rho_bw=0.0, bw_input="raw")
    batch = random_batch(tasks=2)
    grads = method.meta_gradient(meta, batch, progress=0.0).grads
    generator = torch.Generator().manual_seed(7)
    kinds: dict[str, list[str]] = {}
    for name in meta.learned:
        kinds.setdefault(name.translate(UNNUMBERED), []).append(name)
    assert sum(map(len, kinds.values())) == len(meta.learned)
    for names in kinds.values():
        way = {n: torch.randn(meta.learned[n].shape, generator=generator, dtype=torch.float64) for n in names}

        def loss(step: float, way=way) -> float:
            learned = {**meta.learned, **{n: meta.learned[n] + step * d for n, d in way.items()}}
            return query_loss(network, method.config, Meta(learned, meta.fixed), batch)

        h = 2e-4
        slope = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
        assert sum(float((grads[n] * d).sum()) for n, d in way.items()) == pytest.approx(
            slope, rel=1e-7, abs=1e-9
        ), names


def test_first_order_step_size_gradient_is_minus_query_gradient_times_scaled_gradient():
    """dL/dalpha[l, k] = -<g_Q,l , gamma * g_l,k> with inputs detached, and dL/dw = g_Q."""
    network, method, meta = prepared("p-meta", first_order=True)
    batch = random_batch(tasks=1)
    grads = method.meta_gradient(meta, batch, progress=0.0).grads
    task = PlainTask(network, method.config, meta.learned)
    weights = {name: meta.learned[name].clone().requires_grad_() for name in network.parameters}
    changes = []
    for k in range(len(meta.alpha)):
        moved = task.step(weights, meta.alpha[k], batch.support_x[0], batch.support_y[0])
        changes.append({name: (weights[name] - moved[name]).detach() for name in weights})
        weights = {name: value.detach().requires_grad_() for name, value in moved.items()}
    query = F.cross_entropy(task.forward(weights, batch.query_x[0])[0], batch.query_y[0])
    query_gradient = dict(zip(weights, torch.autograd.grad(query, list(weights.values())), strict=True))
    for name, expected in query_gradient.items():
        torch.testing.assert_close(grads[name], expected, rtol=1e-10, atol=1e-12)
    for k, change in enumerate(changes):
        for index in range(len(network.layers)):
            products = [(query_gradient[n] * change[n]).sum() for n in network.names(index)]
            expected = -sum(products) / meta.alpha[k, index]
            torch.testing.assert_close(grads["alpha"][k, index], expected, rtol=1e-8, atol=1e-12)


def test_first_order_gives_attention_its_gradient():
    _, method, meta = prepared("p-meta", first_order=True, rho_fw=0.0)
    grads = method.meta_gradient(meta, random_batch(), progress=0.0).grads
    silent = [name for name, value in grads.items() if name.startswith("attention") and not value.any()]
    assert silent == []


def test_first_order_phase_ends_where_the_setting_says():
    _, method, meta = prepared("maml++", first_order_until=0.5)
    _, second, _ = prepared("maml++")
    _, first, _ = prepared("maml++", first_order=True)
    batch = random_batch()
    for progress, same in ((0.49, first), (0.5, second)):
        expected = same.meta_gradient(meta, batch, 0.0).grads
        assert all(
            torch.equal(value, expected[n])
            for n, value in method.meta_gradient(meta, batch, progress).grads.items()
        )


def test_alpha_that_is_zero_still_gets_its_gradient():
    _, method, meta = prepared("p-meta")
    meta.learned["alpha"].zero_()
    grads = method.meta_gradient(meta, random_batch(), progress=0.0).grads
    assert (grads["alpha"] != 0).all()


@pytest.mark.parametrize("case", ["p-meta", "p-meta per sample"])
def test_with_every_layer_frozen_the_gradient_is_that_of_the_initial_weights(case):
    network, method, meta = prepared(case)
    meta.fixed["open"] = torch.zeros(len(network.layers))
    batch = random_batch()
    result = method.meta_gradient(meta, batch, progress=0.0)
    weights = {name: meta.learned[name].clone().requires_grad_() for name in network.parameters}
    logits = torch.func.functional_call(network.module, weights, (batch.query_x.flatten(0, 1),))
    loss = F.cross_entropy(logits, batch.query_y.flatten())
    truth = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
    for name, value in result.grads.items():
        expected = truth.get(name, torch.zeros_like(value))
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12, msg=name)
    assert not result.benefit.any()


def test_multi_step_weights_follow_the_published_schedule():
    config = MethodConfig(inner_steps=5, multi_step_until=1.0)
    assert step_weights(config, 0.0) == pytest.approx([0.2] * 5)
    assert step_weights(config, 0.5) == pytest.approx([0.1] * 4 + [0.6])
    assert step_weights(config, 0.999) == pytest.approx([0.006] * 4 + [1 - 0.024])
    assert step_weights(MethodConfig(inner_steps=3), 0.0) == (0.0, 0.0, 1.0)


def test_multi_step_gradient_is_the_weighted_sum_over_steps():
    _, method, meta = prepared("maml++", multi_step_until=1.0)
    batch, total = random_batch(), {}
    for k, weight in enumerate(step_weights(method.config, 0.25)):
        shorter = METHODS["maml++"](small_network(), MethodConfig(inner_steps=k + 1))
        for name, value in shorter.meta_gradient(meta, batch, 0.0).grads.items():
            total[name] = total.get(name, 0) + weight * value
    for name, value in method.meta_gradient(meta, batch, 0.25).grads.items():
        torch.testing.assert_close(value, total[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", ["maml", "anil", "maml++", "p-meta", "p-meta per sample"])
def test_checkpointed_steps_give_the_same_gradient_to_the_last_digits(case):
    _, method, meta = prepared(case, multi_step_until=1.0)
    _, thrifty, _ = prepared(case, multi_step_until=1.0, checkpoint_steps=True)
    expected, found = (m.meta_gradient(meta, random_batch(), 0.25) for m in (method, thrifty))
    for name, value in expected.grads.items():
        torch.testing.assert_close(found.grads[name], value, rtol=1e-12, atol=1e-14, msg=name)
    assert found.metrics == pytest.approx(expected.metrics)
    torch.testing.assert_close(found.benefit, expected.benefit)


def test_checkpointed_steps_serve_a_network_whose_layers_are_all_frozen():
    _, method, meta = prepared("p-meta")
    _, thrifty, _ = prepared("p-meta", checkpoint_steps=True)
    meta.fixed["open"] = torch.zeros_like(meta.fixed["open"])
    expected, found = (m.meta_gradient(meta, random_batch(), 0.0).grads for m in (method, thrifty))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14, msg=name)


def test_gradients_are_clamped_per_element():
    _, method, meta = prepared("maml++", gradient_clamp=1e-3)
    grads = method.meta_gradient(meta, random_batch(), progress=0.0).grads
    assert max(float(value.abs().max()) for value in grads.values()) == 1e-3


def test_a_gradient_that_overflows_is_not_clamped_to_a_number():
    values = torch.tensor([-torch.inf, -2.0, 0.5, 2.0, torch.inf, torch.nan])
    expected = torch.tensor([-torch.inf, -1.0, 0.5, 1.0, torch.inf, torch.nan])
    torch.testing.assert_close(clamped(values, 1.0), expected, rtol=0, atol=0, equal_nan=True)
