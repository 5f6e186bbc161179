"""The outer gradient of one chunk of tasks with all inner steps in one graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..inner.base import Batch, Meta, MethodConfig
from ..inner.lite_unroll import unrolled
from ..inner.network import Network
from ..lite import LiteConfig
from .base import ChunkSums


def unrolled_sums(
    network: Network,
    config: MethodConfig,
    lite: LiteConfig,
    meta: Meta,
    layers: tuple[int, ...],
    batch: Batch,
    step_weights: Sequence[float | Tensor],
    first_order: bool,
) -> ChunkSums:
    """Sums over the chunk's tasks of sum_k step_weights[k] * d(query loss at w_k+1)/d(learned).

    Args:
        network: the backbone.
        config: settings of the inner loop.
        lite: how much of a task is differentiated.
        meta: where the inner steps start.
        layers: indices of the layers that may be updated.
        batch: the chunk.
        step_weights: of each step; one that is a tensor counts, one that is the number 0 is left out.
        first_order: see `Unroll`.
    """
    learned = {name: value.detach().requires_grad_() for name, value in meta.learned.items()}
    alpha = learned.get("alpha", meta.alpha)
    unroll = unrolled(network, config, lite, learned, layers, batch, first_order)
    weights = unroll.weights
    total, benefit = torch.zeros(()), torch.zeros(())
    metrics: dict[str, Tensor] = {}
    for k, weight in enumerate(step_weights):
        step = unroll.step(weights, alpha[k], k)
        weights, benefit = step.weights, benefit + step.benefit.sum(0)
        if isinstance(weight, Tensor) or weight != 0:
            losses, metrics = unroll.query(weights)
            total = total + weight * losses.sum()
    found = torch.autograd.grad(total, list(learned.values()), allow_unused=True, materialize_grads=True)
    return ChunkSums(dict(zip(learned, found, strict=True)), metrics, benefit)
