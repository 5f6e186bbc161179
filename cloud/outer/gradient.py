"""The outer gradient that all methods of the family share: unroll, query losses, differentiate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..inner.base import Batch, Meta, MethodConfig
from ..inner.lite_unroll import unrolled
from ..inner.network import Network
from ..lite import LiteConfig
from .base import MetaGradient, open_layers
from .sweep import replayed, swept_back


def step_weights(config: MethodConfig, progress: float) -> tuple[float, ...]:
    """Weights v_k of the query losses after each inner step; only the last outside the multi-step phase.

    v_k = max((1 - e/E) / K, .03 / K) for k < K, v_K = 1 - the rest (MAML++'s multi-step loss optimisation).
    """
    steps = config.inner_steps
    if progress >= config.multi_step_until:
        return (0.0,) * (steps - 1) + (1.0,)
    early = max((1 - progress / config.multi_step_until) / steps, 0.03 / steps)
    return (early,) * (steps - 1) + (1 - early * (steps - 1),)


def outer_gradient(
    network: Network, config: MethodConfig, lite: LiteConfig, meta: Meta, batch: Batch, progress: float
) -> MetaGradient:
    """Mean over tasks of d(query loss)/d(learned), without any penalty.

    Second order through all steps; first order where the configuration or the phase of training asks for it:
    then dL/dw is the query gradient at w_K and dL/dalpha[k, l] = -<g_Q,l , gamma * g_l,k>.
    """
    first_order = config.first_order or progress < config.first_order_until
    weights = step_weights(config, progress)
    if config.checkpoint_steps:
        sums = replayed if first_order else swept_back
        return mean_gradient(
            config, meta, batch, lambda part: sums(network, config, lite, meta, part, weights)
        )
    return mean_gradient(
        config, meta, batch, lambda part: _sums(network, config, lite, meta, part, weights, first_order)
    )


def mean_gradient(
    config: MethodConfig, meta: Meta, batch: Batch, sums: Callable[[Batch], MetaGradient]
) -> MetaGradient:
    """Mean over all tasks of what `sums` adds up over a chunk's, clamped per element where that is set."""
    starts = range(0, len(batch), config.tasks_per_chunk)
    parts = [sums(batch.chunk(start, start + config.tasks_per_chunk)) for start in starts]
    total = {
        name: torch.stack([part.grads[name] for part in parts]).sum(0) / len(batch) for name in meta.learned
    }
    if config.gradient_clamp is not None:
        total = {name: clamped(value, config.gradient_clamp) for name, value in total.items()}
    metrics = {name: sum(part.metrics[name] for part in parts) / len(batch) for name in parts[0].metrics}
    metrics["active_layers"] = float(meta.updated.sum())
    benefit = torch.stack([part.benefit for part in parts]).sum(0) / len(batch)
    return MetaGradient(total, metrics, benefit)


def clamped(value: Tensor, limit: float) -> Tensor:
    """Finite entries within +-limit; infinite ones stay, so that the training loop notices them."""
    return torch.where(value.isfinite(), value.clamp(-limit, limit), value)


def _sums(
    network: Network,
    config: MethodConfig,
    lite: LiteConfig,
    meta: Meta,
    batch: Batch,
    step_weights: Sequence[float],
    first_order: bool,
) -> MetaGradient:
    """Sums over the chunk's tasks, all inner steps in one graph."""
    learned = {name: value.detach().requires_grad_() for name, value in meta.learned.items()}
    alpha = learned.get("alpha", meta.alpha)
    unroll = unrolled(network, config, lite, learned, open_layers(meta), batch, first_order)
    weights = unroll.weights
    total, benefit = torch.zeros(()), torch.zeros(())
    metrics: dict[str, float] = {}
    for k, weight in enumerate(step_weights):
        step = unroll.step(weights, alpha[k], k)
        weights, benefit = step.weights, benefit + step.benefit.sum(0)
        if weight:
            losses, metrics = unroll.query(weights)
            total = total + weight * losses.sum()
    found = torch.autograd.grad(total, list(learned.values()), allow_unused=True, materialize_grads=True)
    return MetaGradient(dict(zip(learned, found, strict=True)), metrics, benefit)
