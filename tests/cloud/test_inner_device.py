"""Adaptation at the device's semantics, against one sample of one task at a time in plain torch, float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from edge_adapt.cloud.inner.base import Meta, MethodConfig
from edge_adapt.cloud.inner.device import adapt, query_logits
from edge_adapt.cloud.outer import METHODS
from torch.nn import functional as F

from .plain import PlainTask, random_batch, small_network

ZEROS = {
    "dense": [],
    "conv1 and norm1 frozen": [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)],
    "ragged": [(0, 0), (1, 0), (0, 1), (2, 2), (1, 3), (1, 4)],
    "one step idle": [(1, layer) for layer in range(5)],
}


def prepared(zeros: str, **settings):
    """p-Meta on the small network, step sizes all different but for the zeros (step, layer)."""
    network = small_network()
    config = MethodConfig(inner_steps=3, inner_step_size=0.3, **settings)
    meta = METHODS["p-meta"](network, config).init(seed=5).to(torch.float64)
    alpha = meta.alpha * torch.linspace(0.5, 1.5, meta.alpha.numel()).double().reshape(meta.alpha.shape)
    for step, layer in ZEROS[zeros]:
        alpha[step, layer] = 0
    return network, config, Meta({**meta.learned, "alpha": alpha}, meta.fixed)


def one_sample_at_a_time(network, config, meta, x, y):
    """K steps of w <- w - alpha * mean_n(gamma_n * g_n), each g_n from its own backward pass."""
    task = PlainTask(network, config, meta.learned)
    weights = {name: meta.learned[name] for name in network.parameters}
    for k in range(len(meta.alpha)):
        source = {name: value.detach().requires_grad_() for name, value in weights.items()}
        moved = [task.step(source, meta.alpha[k], x[n : n + 1], y[n : n + 1]) for n in range(len(y))]
        weights = {name: sum(m[name] for m in moved).detach() / len(y) for name in weights}
    return weights


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize(
    "settings", [{}, {"rho_bw": 0.3, "bw_input": "raw"}, {"attention": False}, {"rho_fw": 0.0, "cap": 2}]
)
def test_adaptation_equals_the_mean_over_samples_of_their_own_scaled_gradients(zeros, settings):
    network, config, meta = prepared(zeros, **settings)
    batch = random_batch()
    adapted = adapt(network, config, meta, batch.support_x, batch.support_y)
    for t in range(len(batch)):
        expected = one_sample_at_a_time(network, config, meta, batch.support_x[t], batch.support_y[t])
        for name, value in expected.items():
            got = adapted.weights[name]
            got = got[t] if got.dim() > value.dim() else got
            torch.testing.assert_close(got, value, rtol=1e-12, atol=1e-12, msg=f"{name}, task {t}")


def test_weights_of_layers_that_no_step_updates_stay_shared():
    network, config, meta = prepared("conv1 and norm1 frozen")
    batch = random_batch()
    adapted = adapt(network, config, meta, batch.support_x, batch.support_y)
    for name in ("conv1.weight", "norm1.bias"):
        assert torch.equal(adapted.weights[name], meta.learned[name])
    assert adapted.weights["fc.weight"].shape == (3, *meta.learned["fc.weight"].shape)


def test_a_task_adapts_the_same_alone_and_among_others():
    network, config, meta = prepared("ragged")
    batch = random_batch()
    together = adapt(network, config, meta, batch.support_x, batch.support_y)
    alone = adapt(network, config, meta, batch.support_x[1:2], batch.support_y[1:2])
    torch.testing.assert_close(together.losses[1:2], alone.losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together.benefit[1:2], alone.benefit, rtol=1e-12, atol=1e-12)
    for step, kept in enumerate(alone.kept):
        assert all(torch.equal(together.kept[step][key][1:2], value) for key, value in kept.items())


def test_one_sample_per_task_makes_training_and_device_the_same():
    network, config, meta = prepared("dense")
    batch = random_batch(samples=1)
    adapted = adapt(network, config, meta, batch.support_x, batch.support_y)
    logits = query_logits(network, adapted, batch.query_x)
    loss = F.cross_entropy(logits.flatten(0, 1), batch.query_y.flatten())
    trained = METHODS["p-meta"](network, config).meta_gradient(meta, batch, 0.0)
    assert trained.metrics["query_loss"] == pytest.approx(float(loss), rel=1e-12)


def test_training_per_sample_has_the_devices_query_loss():
    network, config, meta = prepared("dense")
    batch = random_batch()
    adapted = adapt(network, config, meta, batch.support_x, batch.support_y)
    logits = query_logits(network, adapted, batch.query_x).flatten(0, 1)
    loss = float(F.cross_entropy(logits, batch.query_y.flatten()))

    def trained(over: str) -> float:
        method = METHODS["p-meta"](network, replace(config, attention_over=over))
        return method.meta_gradient(meta, batch, 0.0).metrics["query_loss"]

    assert trained("sample") == pytest.approx(loss, rel=1e-12)
    assert trained("batch") != pytest.approx(loss, rel=1e-6)


def test_recorded_selections_are_used_and_replay_the_same_adaptation():
    network, config, meta = prepared("dense")
    batch = random_batch()
    first = adapt(network, config, meta, batch.support_x, batch.support_y)
    again = adapt(network, config, meta, batch.support_x, batch.support_y, recorded=first.kept)
    everything = [{key: torch.ones_like(value) for key, value in kept.items()} for kept in first.kept]
    other = adapt(network, config, meta, batch.support_x, batch.support_y, recorded=everything)
    for name, value in first.weights.items():
        assert torch.equal(value, again.weights[name])
    assert not torch.equal(first.weights["conv1.weight"], other.weights["conv1.weight"])


def test_caps_bound_the_kept_channels():
    network, config, meta = prepared("dense")
    batch = random_batch()
    caps = [{"conv2.fw": 1}, {}, {"conv2.fw": 2, "norm1.fw": 1}]
    kept = adapt(network, config, meta, batch.support_x, batch.support_y, caps=caps).kept
    assert [int(step["conv2.fw"].sum(-1).max()) for step in kept] == [1, 2, 2]
    assert int(kept[2]["norm1.fw"].sum(-1).max()) == 1


def test_the_methods_cap_bounds_forward_attention_only_and_callers_caps_lower_it():
    network, config, meta = prepared("dense", rho_fw=0.0, cap=2)
    batch = random_batch()
    kept = adapt(network, config, meta, batch.support_x, batch.support_y).kept[0]
    assert {int(mask.sum(-1).max()) for key, mask in kept.items() if key.endswith(".fw")} == {2}
    assert all(bool(mask.all()) for key, mask in kept.items() if key.endswith(".bw"))
    caps = [{"conv2.fw": 1, "norm2.fw": 3}] * 3
    kept = adapt(network, config, meta, batch.support_x, batch.support_y, caps=caps).kept[0]
    assert int(kept["conv2.fw"].sum(-1).max()) == 1
    assert int(kept["norm2.fw"].sum(-1).max()) == 2


def test_single_precision_follows_double_precision():
    network, config, meta = prepared("ragged")
    batch = random_batch()
    double = adapt(network, config, meta, batch.support_x, batch.support_y)
    single = adapt(
        network,
        config,
        meta.to(torch.float32),
        batch.support_x.float(),
        batch.support_y,
        recorded=double.kept,
    )
    for name, value in single.weights.items():
        torch.testing.assert_close(value.double(), double.weights[name], rtol=1e-4, atol=1e-5)
