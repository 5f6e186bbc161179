"""First order where step sizes and attention are learned: nothing is silently missing, every number is checked.

The truth is the pull J = -sum_k sum_l alpha[k,l] <g_Q,l , gamma_lk * g_lk> with g_Q, g_lk and what attention sees
recorded on the path and held fixed: dL/dalpha = dJ/dalpha, dL/dattention = dJ/dattention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from edge_adapt.cloud.inner.base import Batch, Meta, MethodConfig
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.outer import METHODS, Method
from torch import Tensor
from torch.nn import functional as F

from .plain import PlainTask, gamma_of_weight, random_batch, small_network

Weights = dict[str, Tensor]
Seen = tuple[dict[str, Any], Weights, Weights]
"""Of one step: what the layers saw, the gradients of their outputs, those of their parameters."""


def prepared(name: str, **settings: Any) -> tuple[Network, Method, Meta]:
    """Step sizes all different."""
    network = small_network()
    method = METHODS[name](network, MethodConfig(inner_steps=3, inner_step_size=0.3, **settings))
    meta = method.init(seed=3).to(torch.float64)
    factors = torch.linspace(0.5, 1.5, meta.alpha.numel(), dtype=torch.float64).reshape(meta.alpha.shape)
    (meta.learned if "alpha" in meta.learned else meta.fixed)["alpha"] = meta.alpha * factors
    return network, method, meta


def followed(task: PlainTask, meta: Meta, batch: Batch) -> tuple[list[Seen], Weights]:
    """The steps on the first task, everything detached, and the weights after them."""
    x, y = batch.support_x[0], batch.support_y[0]
    weights = {name: meta.learned[name] for name in task.network.parameters}
    steps: list[Seen] = []
    for sizes in meta.alpha:
        weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
        logits, seen = task.forward(weights, x)
        outputs = [found[2] for found in seen.values()]
        targets = [*weights.values(), *outputs]
        grads = torch.autograd.grad(F.cross_entropy(logits, y), targets)
        fixed = {name: (part, came.detach(), out.detach()) for name, (part, came, out) in seen.items()}
        g = dict(zip(weights, grads, strict=False))
        steps.append((fixed, dict(zip(seen, grads[len(weights) :], strict=True)), g))
        weights = task.step(weights, sizes, x, y)
    return steps, {name: value.detach() for name, value in weights.items()}


def query_gradient(network: Network, weights: Weights, batch: Batch) -> Weights:
    leaves = {name: value.requires_grad_() for name, value in weights.items()}
    logits = torch.func.functional_call(network.module, leaves, (batch.query_x[0],))
    found = torch.autograd.grad(F.cross_entropy(logits, batch.query_y[0]), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def pull(
    task: PlainTask,
    steps: list[Seen],
    outer: Weights,
    alpha: Tensor,
    learned: Mapping[str, Tensor],
    samples: int,
) -> Tensor:
    """J as a function of step sizes and attention parameters."""
    own = PlainTask(task.network, task.config, learned)
    total = torch.zeros((), dtype=torch.float64)
    for k, (seen, gy, g) in enumerate(steps):
        for index, layer in enumerate(task.network.layers):
            for name in task.network.names(index):
                change = g[name]
                if own.attends(index):
                    fw, bw = own.gammas(layer.name, seen, gy, samples)
                    bias = name.endswith("bias")
                    change = change * (bw if bias else gamma_of_weight(seen[layer.name][0], fw, bw))
                total = total - alpha[k, index] * (outer[name] * change).sum()
    return total


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("maml++", {}),
        ("p-meta", {"attention": False}),
        ("p-meta", {"rho_fw": 0.0}),
        ("p-meta", {"rho_fw": 0.3, "rho_bw": 0.3, "bw_input": "raw"}),
    ],
)
def test_first_order_gradients_of_step_sizes_and_attention_are_those_of_the_pull(
    name: str, settings: dict[str, Any], checkpointed: bool
) -> None:
    network, method, meta = prepared(name, first_order=True, checkpoint_steps=checkpointed, **settings)
    batch = random_batch(tasks=1)
    task = PlainTask(network, method.config, meta.learned)
    steps, last = followed(task, meta, batch)
    outer = query_gradient(network, last, batch)
    leaves = {n: v.clone().requires_grad_() for n, v in meta.learned.items() if n not in network.parameters}
    found = method.meta_gradient(meta, batch, 0.0).grads
    value = pull(task, steps, outer, leaves["alpha"], leaves, batch.support_y.shape[1])
    truth = dict(zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True))
    for key, expected in {**truth, **outer}.items():
        assert expected.any(), key
        torch.testing.assert_close(found[key], expected, rtol=1e-9, atol=1e-13, msg=key)


def test_first_order_gradients_of_attention_are_differences_of_the_pull() -> None:
    """At rho = 0, where nothing is clipped, along a random direction through all modules at once."""
    network, method, meta = prepared("p-meta", first_order=True, rho_fw=0.0)
    batch, generator = random_batch(tasks=1), torch.Generator().manual_seed(8)
    task = PlainTask(network, method.config, meta.learned)
    steps, last = followed(task, meta, batch)
    outer = query_gradient(network, last, batch)
    attention = {n: v for n, v in meta.learned.items() if n.startswith("attention.")}
    way = {n: torch.randn(v.shape, dtype=torch.float64, generator=generator) for n, v in attention.items()}

    def moved(step: float) -> float:
        learned = {n: v + step * way[n] for n, v in attention.items()}
        return float(pull(task, steps, outer, meta.alpha, learned, batch.support_y.shape[1]))

    h = 1e-4
    slope = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    grads = method.meta_gradient(meta, batch, 0.0).grads
    assert slope != 0
    assert sum(float((grads[n] * d).sum()) for n, d in way.items()) == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("over", ["batch", "sample"])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", ["maml", "anil", "boil", "maml++", "p-meta"])
def test_in_first_order_nothing_that_is_learned_misses_its_gradient(
    name: str, checkpointed: bool, over: str
) -> None:
    settings = {"attention_over": over, "rho_fw": 0.0} if name == "p-meta" else {}
    _, method, meta = prepared(name, first_order=True, checkpoint_steps=checkpointed, **settings)
    grads = method.meta_gradient(meta, random_batch(), 0.0).grads
    assert grads.keys() == meta.learned.keys()
    assert [key for key, value in grads.items() if not value.any()] == []


@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("maml", {}),
        ("anil", {}),
        ("boil", {"tasks_per_chunk": 2}),
        ("maml++", {}),
        ("p-meta", {}),
        ("p-meta", {"attention_over": "sample"}),
        ("p-meta", {"attention": False, "channel_alpha": True}),
    ],
)
def test_replayed_steps_give_the_first_order_gradient_to_the_last_digits(
    name: str, settings: dict[str, Any], progress: float
) -> None:
    both = []
    for checkpointed in (False, True):
        config = {"first_order": True, "multi_step_until": 1.0, "checkpoint_steps": checkpointed, **settings}
        _, method, meta = prepared(name, **config)
        both.append(method.meta_gradient(meta, random_batch(), progress))
    expected, found = both
    for key, value in expected.grads.items():
        torch.testing.assert_close(found.grads[key], value, rtol=1e-11, atol=1e-13, msg=key)
    assert found.metrics == pytest.approx(expected.metrics)
    torch.testing.assert_close(found.benefit, expected.benefit)
