"""Ablations of meta attention: one side only, channel step sizes (table 4), masked maps (table 7); all in float64."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from edge_adapt.cloud.inner.base import Batch, Meta, MethodConfig
from edge_adapt.cloud.inner.device import adapt, query_logits
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.outer import METHODS
from edge_adapt.cloud.outer.pmeta import PMeta
from torch import Tensor, nn
from torch.nn import functional as F

from .plain import PlainTask, plain_gamma, plain_gradient, random_batch, small_network

ALONE = {"no forward side": {"rho_fw": None, "rho_bw": 0.3}, "no backward side": {"rho_bw": None}}
CHANNELS = {"attention": False, "channel_alpha": True}


def prepared(smooth: bool = False, **settings) -> tuple[Network, PMeta, Meta]:
    """p-Meta on the small network; step sizes, of channels too, all different."""
    network = small_network(smooth=smooth)
    method = PMeta(network, MethodConfig(inner_steps=2, inner_step_size=0.3, **settings))
    meta = method.init(seed=5).to(torch.float64)
    generator = torch.Generator().manual_seed(7)
    for name, value in meta.learned.items():
        if name == "alpha" or name.startswith("channels."):
            meta.learned[name] = value * (0.5 + torch.rand(value.shape, generator=generator).double())
    return network, method, meta


class ChannelTask(PlainTask):
    """Every layer but the last has step sizes of its input and output channels."""

    def attends(self, index: int) -> bool:
        return not self.network.layers[index].is_output

    def gammas(self, name, seen, gy, samples):
        return self.learned[f"channels.{name}.fw"], self.learned[f"channels.{name}.bw"]


@pytest.mark.parametrize("over", ["batch", "sample"])
@pytest.mark.parametrize("case", ALONE)
def test_one_side_of_attention_alone_against_plain_double_backward(case, over):
    network, method, meta = prepared(**ALONE[case], attention_over=over)
    side = "bw" if ALONE[case]["rho_bw"] else "fw"
    assert {name.split(".")[2] for name in meta.learned if name.startswith("attention.")} == {side}
    batch = random_batch()
    truth = plain_gradient(network, method.config, meta, batch)
    found = method.meta_gradient(meta, batch, 1.0).grads
    for name, expected in truth.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_channel_step_sizes_against_plain_double_backward(checkpointed):
    network, method, meta = prepared(**CHANNELS, checkpoint_steps=checkpointed)
    batch = random_batch()
    truth = plain_gradient(network, method.config, meta, batch, ChannelTask)
    found = method.meta_gradient(meta, batch, 1.0).grads
    assert sum(name.startswith("channels.") for name in found) == 8
    for name, expected in truth.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12, msg=name)


def test_channel_step_sizes_start_at_1_unpenalised_with_a_rate_of_their_own():
    method = PMeta(small_network(), MethodConfig(alpha_rate=0.02, penalty="activations", **CHANNELS))
    meta = method.init(0)
    own = {name: value for name, value in meta.learned.items() if name.startswith("channels.")}
    assert {tuple(value.shape) for value in own.values()} == {(2,), (4,), (6,)}
    assert all(bool((value == 1).all()) for value in own.values())
    assert not any(name.startswith("attention.") for name in meta.learned)
    rates = {name: group["lr"] for group in method.param_groups(meta, 1e-3) for name in group["names"]}
    assert rates.keys() == meta.learned.keys()
    assert {rates[name] for name in own} == {0.02}
    assert rates["alpha"] == pytest.approx(0.02 * 0.1)


def test_channel_step_sizes_of_1_are_p_meta_without_attention():
    batch = random_batch()
    results = []
    for settings in (CHANNELS, {"attention": False}):
        network = small_network()
        config = MethodConfig(inner_steps=2, inner_step_size=0.3, **settings)
        meta = PMeta(network, config).init(0).to(torch.float64)
        results.append(adapt(network, config, meta, batch.support_x, batch.support_y).weights)
    for name, value in results[1].items():
        torch.testing.assert_close(results[0][name], value, rtol=1e-12, atol=1e-14)


def masked_step(
    network: Network,
    config: MethodConfig,
    learned: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    alpha: Tensor,
    x: Tensor,
    y: Tensor,
) -> dict[str, Tensor]:
    """One step with masked maps, layer by layer by hand: forward, then each layer's own vector-Jacobian product."""
    index = {layer.name: i for i, layer in enumerate(network.layers)}
    tape = []
    for name, part in network.module.named_children():
        source = x.detach().requires_grad_()
        params = {n: weights[f"{name}.{n}"].detach().requires_grad_() for n, _ in part.named_parameters()}
        attends = name in index and not network.layers[index[name]].is_output
        if attends and config.rho_fw is not None:
            y_out = masked_forward(part, params, source, learned, f"{name}.fw", config.rho_fw)
        else:
            y_out = torch.func.functional_call(part, params, (source,))
        tape.append((name, source, params, y_out, attends))
        x = y_out
    logits = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(logits, y), logits)
    updated = dict(weights)
    for name, source, params, y_out, attends in reversed(tape):
        if attends and config.rho_bw is not None:
            pooled = g.mean((2, 3)) * len(y)
            if config.bw_input == "rms":
                pooled = pooled / (pooled.square().mean(1, keepdim=True).sqrt() + 1e-12)
            g = g * plain_gamma(learned, f"{name}.bw", pooled, config.rho_bw)[:, None, None]
        g, *grads = torch.autograd.grad(y_out, [source, *params.values()], g)
        for n, grad in zip(params, grads, strict=True):
            updated[f"{name}.{n}"] = weights[f"{name}.{n}"] - alpha[index[name]] * grad
    return updated


def masked_forward(
    part: nn.Module,
    params: Mapping[str, Tensor],
    x: Tensor,
    learned: Mapping[str, Tensor],
    key: str,
    rho: float,
) -> Tensor:
    seen = F.group_norm(x, part.num_groups, eps=part.eps) if isinstance(part, nn.GroupNorm) else x
    gamma = plain_gamma(learned, key, seen.detach().mean((2, 3)), rho)[:, None, None]
    if isinstance(part, nn.GroupNorm):
        return seen * gamma * params["weight"][:, None, None] + params["bias"][:, None, None]
    masked: Tensor = torch.func.functional_call(part, dict(params), (seen * gamma,))
    return masked


def masked_query_loss(network: Network, config: MethodConfig, meta: Meta, batch: Batch, size: int) -> float:
    """Mean query loss after K masked steps, in parts of `size` samples; no mask on queries."""
    losses = []
    for x, y, query_x, query_y in zip(
        batch.support_x, batch.support_y, batch.query_x, batch.query_y, strict=True
    ):
        weights = {name: meta.learned[name] for name in network.parameters}
        for alpha in meta.alpha:
            parts = [
                masked_step(network, config, meta.learned, weights, alpha, x[i : i + size], y[i : i + size])
                for i in range(0, len(y), size)
            ]
            weights = {name: torch.stack([part[name] for part in parts]).mean(0) for name in weights}
        logits = torch.func.functional_call(network.module, weights, (query_x,))
        losses.append(F.cross_entropy(logits, query_y))
    return float(torch.stack(losses).mean())


MASKED = {
    "both sides": {"rho_bw": 0.3},
    "x alone": {"rho_bw": None},
    "g(y) alone": {"rho_fw": None},
}


@pytest.mark.parametrize("case", MASKED)
def test_masked_maps_train_and_adapt_as_written_out_by_hand(case):
    network, method, meta = prepared(attention_masks="maps", **MASKED[case])
    batch = random_batch()
    expected = masked_query_loss(network, method.config, meta, batch, 6)
    assert method.meta_gradient(meta, batch, 1.0).metrics["query_loss"] == pytest.approx(expected, rel=1e-10)
    for size in (6, 2, 1):
        adapted = adapt(network, method.config, meta, batch.support_x, batch.support_y, batch=size)
        logits = query_logits(network, adapted, batch.query_x).flatten(0, 1)
        found = float(F.cross_entropy(logits, batch.query_y.flatten()))
        assert found == pytest.approx(masked_query_loss(network, method.config, meta, batch, size), rel=1e-10)


def test_masked_maps_differ_from_masked_gradients():
    batch = random_batch()
    losses = []
    for masks in ("maps", "gradients"):
        _, method, meta = prepared(attention_masks=masks)
        losses.append(method.meta_gradient(meta, batch, 1.0).metrics["query_loss"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("case", MASKED)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_outer_gradient_of_masked_maps_is_their_finite_difference(case, checkpointed):
    """At rho = 0 and raw gradients, where nothing is detached on the way, on a network without kinks.

    A short step: attention has ReLUs."""
    sides = {name: None if rho is None else 0.0 for name, rho in MASKED[case].items()}
    settings = {"rho_fw": 0.0, **sides, "attention_masks": "maps", "bw_input": "raw"}
    network, method, meta = prepared(smooth=True, checkpoint_steps=checkpointed, **settings)
    batch = random_batch(tasks=2)
    grads = method.meta_gradient(meta, batch, 1.0).grads
    generator = torch.Generator().manual_seed(3)
    for prefix in ("attention.", "alpha", "conv1.", "norm2.", "fc."):
        names = [name for name in meta.learned if name.startswith(prefix)]
        along = {n: torch.randn(meta.learned[n].shape, generator=generator).double() for n in names}
        step = 1e-6
        sides_of = []
        for sign in (1, -1):
            moved = {n: meta.learned[n] + sign * step * v for n, v in along.items()}
            shifted = Meta({**meta.learned, **moved}, meta.fixed)
            sides_of.append(masked_query_loss(network, method.config, shifted, batch, 6))
        expected = (sides_of[0] - sides_of[1]) / (2 * step)
        found = sum(float((grads[n] * v).sum()) for n, v in along.items())
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9), prefix


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channel_alpha": True}, "channel_alpha must be false, or attention = false, got True"),
        ({"rho_fw": None, "rho_bw": None}, "attention must be false where rho_fw and rho_bw are none"),
        ({"rho_fw": None, "cap": 2}, "cap must be .*none where rho_fw is none, got 2"),
        ({"attention_masks": "x"}, "attention_masks must be one of gradients, maps, got 'x'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        MethodConfig(**settings)


def test_masked_maps_need_second_order():
    config = MethodConfig(attention_masks="maps", first_order_until=0.1)
    with pytest.raises(ValueError, match=r'attention_masks: "maps" is learned through second derivatives'):
        PMeta(small_network(), config)


@pytest.mark.parametrize("setting", [CHANNELS, {"attention_masks": "maps"}])
def test_other_methods_refuse_the_ablations_of_p_meta(setting):
    with pytest.raises(ValueError, match="would have no effect, maml does not use it"):
        METHODS["maml"](small_network(), MethodConfig(**setting))
