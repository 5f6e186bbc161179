"""The second-order gradient of an unroll that keeps only each step's weights: back through one step at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..inner.base import Batch, Meta, MethodConfig
from ..inner.network import Network
from ..inner.unroll import Unroll
from .base import MetaGradient, open_layers


def swept_back(
    network: Network, config: MethodConfig, meta: Meta, batch: Batch, step_weights: Sequence[float]
) -> MetaGradient:
    """Sums over the chunk's tasks of sum_k step_weights[k] * d(query loss at w_k+1)/d(learned).

    Every inner step is computed twice: once forward, without a graph that outlives it, and once on the way
    back. Memory: one step's graph and K sets of weights.
    """
    sweep = _Sweep(network, config, meta, batch)
    visited, benefit = sweep.forward()
    back = {name: torch.zeros_like(visited[0][name]) for name in sweep.names}
    metrics: dict[str, float] = {}
    for k in reversed(range(len(step_weights))):
        if step_weights[k]:
            back, found = sweep.back_from_query(visited[k + 1], back, step_weights[k])
            metrics = metrics or found
        back = sweep.back_through_step(visited[k], k, back)
    for name, value in back.items():
        sweep.total[name] = sweep.total[name] + value.sum(0)
    return MetaGradient(sweep.total, metrics, benefit)


class _Sweep:
    """One chunk's unroll; `total` collects what reaches the learned values other than through the weights w_k."""

    def __init__(self, network: Network, config: MethodConfig, meta: Meta, batch: Batch) -> None:
        self._learned = {name: value.detach().requires_grad_() for name, value in meta.learned.items()}
        self._alpha = self._learned.get("alpha", meta.alpha)
        layers = open_layers(meta)
        self.names = [name for index in layers for name in network.names(index)]
        self._unroll = Unroll(network, config, self._learned, layers, batch, first_order=False)
        self.total = {name: torch.zeros_like(value) for name, value in meta.learned.items()}

    def forward(self) -> tuple[list[dict[str, Tensor]], Tensor]:
        """The open layers' weights w_0 .. w_K, detached, and the benefit summed over tasks and steps."""
        visited = [{name: self._unroll.weights[name].detach() for name in self.names}]
        benefit = torch.zeros(())
        for size in self._alpha.detach():
            step = self._unroll.step(self._at(_leaves(visited[-1])), size)
            visited.append({name: step.weights[name].detach() for name in self.names})
            benefit = benefit + step.benefit.sum(0)
        return visited, benefit

    def back_from_query(
        self, weights: Mapping[str, Tensor], back: Mapping[str, Tensor], weight: float
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Add weight * d(query loss)/d(weights) to `back`; and the chunk's query loss and metric."""
        leaves = _leaves(weights)
        losses, metrics = self._unroll.query(self._at(leaves))
        found = self._differentiate([losses], [torch.full_like(losses, weight)], leaves)
        return {name: back[name] + found[name] for name in self.names}, metrics

    def back_through_step(
        self, weights: Mapping[str, Tensor], k: int, back: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """From d/dw_k+1 to d/dw_k."""
        leaves = _leaves(weights)
        after = self._unroll.step(self._at(leaves), self._alpha[k]).weights
        return self._differentiate([after[name] for name in self.names], [*back.values()], leaves)

    def _differentiate(
        self, outputs: Sequence[Tensor], back: Sequence[Tensor], leaves: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Gradients of the leaves; those of the learned values are added to the total."""
        if not outputs:
            return {}
        targets = [*leaves.values(), *self._learned.values()]
        found = torch.autograd.grad(
            outputs, targets, back, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for name, value in zip(self._learned, found[len(leaves) :], strict=True):
            self.total[name] = self.total[name] + value
        return dict(zip(leaves, found[: len(leaves)], strict=True))

    def _at(self, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**self._unroll.weights, **leaves}


def _leaves(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().requires_grad_() for name, value in weights.items()}
