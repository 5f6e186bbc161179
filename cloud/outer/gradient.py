"""The outer gradient that all methods of the family share: unroll, query losses, differentiate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..inner.base import Batch, Meta, MethodConfig, Tasks
from ..inner.network import Network
from ..lite import LiteConfig
from .base import ChunkSums, MetaGradient, open_layers
from .compiled import CompiledSums
from .sweep import replayed, swept_back
from .unrolled import unrolled_sums


def step_weights(config: MethodConfig, progress: float) -> tuple[float, ...]:
    """Weights v_k of the query losses after each inner step; only the last outside the multi-step phase.

    v_k = max((1 - e/E) / K, .03 / K) for k < K, v_K = 1 - the rest (MAML++'s multi-step loss optimisation).
    """
    steps = config.inner_steps
    if progress >= config.multi_step_until:
        return (0.0,) * (steps - 1) + (1.0,)
    early = max((1 - progress / config.multi_step_until) / steps, 0.03 / steps)
    return (early,) * (steps - 1) + (1 - early * (steps - 1),)


class OuterGradient:
    """Mean over tasks of d(query loss)/d(learned), without any penalty.

    Second order through all steps; first order where the configuration or the phase of training asks for it:
    then dL/dw is the query gradient at w_K and dL/dalpha[k, l] = -<g_Q,l , gamma * g_l,k>.
    """

    def __init__(self, network: Network, config: MethodConfig, lite: LiteConfig) -> None:
        self._of = network, config, lite
        self._config = config
        self._compiled = CompiledSums(network, config, lite) if config.compile_steps else None

    def __call__(self, meta: Meta, tasks: Tasks, progress: float) -> MetaGradient:
        """At these meta-parameters; progress in [0, 1] is the share of training done."""
        config = self._config
        first_order = config.first_order or progress < config.first_order_until
        weights, layers = step_weights(config, progress), open_layers(meta)

        def sums(part: Batch) -> ChunkSums:
            if self._compiled is not None:
                return self._compiled(meta, layers, part, weights, first_order)
            if config.checkpoint_steps:
                return (replayed if first_order else swept_back)(*self._of, meta, part, weights)
            return unrolled_sums(*self._of, meta, layers, part, weights, first_order)

        return mean_gradient(config, meta, tasks, sums)


def mean_gradient(
    config: MethodConfig, meta: Meta, tasks: Tasks, sums: Callable[[Batch], ChunkSums]
) -> MetaGradient:
    """Mean over all tasks of what `sums` adds up over a chunk's, clamped per element where that is set.

    The memory is that of one chunk and of one gradient, however many tasks there are.
    """
    total: dict[str, Tensor] = {}
    parts = list[ChunkSums]()
    for start in range(0, len(tasks), config.tasks_per_chunk):
        stop = min(start + config.tasks_per_chunk, len(tasks))
        parts.append(_moved(sums(tasks.chunk(start, stop)), total))
    total = {name: total[name] / len(tasks) for name in meta.learned}
    if config.gradient_clamp is not None:
        total = {name: clamped(value, config.gradient_clamp) for name, value in total.items()}
    metrics = {
        name: sum(float(part.metrics[name]) for part in parts) / len(tasks) for name in parts[0].metrics
    }
    metrics["active_layers"] = float(meta.updated.sum())
    benefit = torch.stack([part.benefit for part in parts]).sum(0) / len(tasks)
    return MetaGradient(total, metrics, benefit)


def _moved(part: ChunkSums, total: dict[str, Tensor]) -> ChunkSums:
    """Add a chunk's gradients to the total; the rest of what it gave."""
    for name, value in part.grads.items():
        total[name] = total[name] + value if name in total else value
    return replace(part, grads={})


def clamped(value: Tensor, limit: float) -> Tensor:
    """Finite entries within +-limit; infinite ones stay, so that the training loop notices them."""
    return torch.where(value.isfinite(), value.clamp(-limit, limit), value)
