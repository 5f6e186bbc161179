"""Outer gradients whose memory is that of one inner step: every step is computed again when its turn comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..inner.base import Batch, Meta, MethodConfig
from ..inner.lite_unroll import unrolled
from ..inner.network import Network
from ..lite import LiteConfig
from .base import ChunkSums, open_layers

Weights = dict[str, Tensor]
"""Of the open layers, by name, (T, ...)."""


def swept_back(
    network: Network,
    config: MethodConfig,
    lite: LiteConfig,
    meta: Meta,
    batch: Batch,
    step_weights: Sequence[float],
) -> ChunkSums:
    """Sums over the chunk's tasks of sum_k step_weights[k] * d(query loss at w_k+1)/d(learned), second order.

    Every inner step is computed twice: once forward, without a graph that outlives it, and once on the way
    back. Memory: one step's graph and K sets of weights.
    """
    sweep = _Sweep(network, config, lite, meta, batch, first_order=False)
    visited, benefit = [sweep.start], torch.zeros(())
    for k in range(len(step_weights)):
        after, gained = sweep.step(visited[-1], k)
        visited, benefit = [*visited, after], benefit + gained
    back = sweep.nothing()
    metrics: dict[str, Tensor] = {}
    for k in reversed(range(len(step_weights))):
        if step_weights[k]:
            found, shown = sweep.from_query(visited[k + 1], step_weights[k])
            back, metrics = _sum(back, found), metrics or shown
        _, back = sweep.through_step(visited[k], k, back)
    return ChunkSums(sweep.total_with(back), metrics, benefit)


def replayed(
    network: Network,
    config: MethodConfig,
    lite: LiteConfig,
    meta: Meta,
    batch: Batch,
    step_weights: Sequence[float],
) -> ChunkSums:
    """The same sums to first order, where step k sees of later query losses only their gradients g_Q(w_j), j > k.

    The steps are taken once to sum these up, and once more, where step sizes or attention are learned, to
    multiply each step's change with what is left of the sum. Memory: one step's graph, however many there are.
    """
    sweep = _Sweep(network, config, lite, meta, batch, first_order=True)
    weights, benefit, left = sweep.start, torch.zeros(()), sweep.nothing()
    metrics: dict[str, Tensor] = {}
    for k, weight in enumerate(step_weights):
        weights, gained = sweep.step(weights, k)
        benefit = benefit + gained
        if weight:
            found, metrics = sweep.from_query(weights, weight)
            left = _sum(left, found)
    total = left
    if not meta.learned.keys() <= set(network.parameters):
        weights = sweep.start
        for k, weight in enumerate(step_weights):
            weights, _ = sweep.through_step(weights, k, left)
            if weight:
                left = _sum(left, sweep.from_query(weights, -weight, counted=False)[0])
    return ChunkSums(sweep.total_with(total), metrics, benefit)


class _Sweep:
    """One chunk's unroll; collects what reaches the learned values other than through the weights w_k."""

    def __init__(
        self,
        network: Network,
        config: MethodConfig,
        lite: LiteConfig,
        meta: Meta,
        batch: Batch,
        first_order: bool,
    ) -> None:
        self._learned = {name: value.detach().requires_grad_() for name, value in meta.learned.items()}
        self._alpha = self._learned.get("alpha", meta.alpha)
        layers = open_layers(meta)
        self._names = [name for index in layers for name in network.names(index)]
        self._unroll = unrolled(network, config, lite, self._learned, layers, batch, first_order)
        self._total = {name: torch.zeros_like(value) for name, value in meta.learned.items()}
        self.start: Weights = {name: self._unroll.weights[name].detach() for name in self._names}

    def nothing(self) -> Weights:
        """Zeros in the shapes of the weights."""
        return {name: torch.zeros_like(value) for name, value in self.start.items()}

    def total_with(self, back: Weights) -> Weights:
        """What was collected, and d/dw_0 summed over tasks: the gradient by learned name."""
        return {**self._total, **{name: self._total[name] + value.sum(0) for name, value in back.items()}}

    def step(self, weights: Weights, k: int) -> tuple[Weights, Tensor]:
        """The weights after step k, detached, and its benefit (L,) summed over tasks."""
        taken = self._unroll.step(self._at(_leaves(weights)), self._alpha[k].detach(), k)
        return {name: taken.weights[name].detach() for name in self._names}, taken.benefit.sum(0)

    def from_query(
        self, weights: Weights, weight: float, counted: bool = True
    ) -> tuple[Weights, dict[str, Tensor]]:
        """weight * d(query loss)/d(weights); the chunk's query loss and metric."""
        leaves = _leaves(weights)
        losses, metrics = self._unroll.query(self._at(leaves))
        back = [torch.full_like(losses, weight)]
        return self._differentiate([losses], back, leaves, counted), metrics

    def through_step(self, weights: Weights, k: int, back: Weights) -> tuple[Weights, Weights]:
        """The weights after step k, detached; from d/dw_k+1 to d/dw_k."""
        leaves = _leaves(weights)
        taken = self._unroll.step(self._at(leaves), self._alpha[k], k).weights
        outputs = [taken[name] for name in self._names]
        found = self._differentiate(outputs, [back[name] for name in self._names], leaves)
        return {name: taken[name].detach() for name in self._names}, found

    def _differentiate(
        self, outputs: Sequence[Tensor], back: Sequence[Tensor], leaves: Weights, counted: bool = True
    ) -> Weights:
        """Gradients of the leaves; those of the learned values are collected where they count."""
        if not outputs:
            return {}
        targets = [*leaves.values(), *self._learned.values()]
        found = torch.autograd.grad(
            outputs, targets, back, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        if counted:
            rest = zip(self._learned, found[len(leaves) :], strict=True)
            self._total |= {name: self._total[name] + value for name, value in rest}
        return dict(zip(leaves, found[: len(leaves)], strict=True))

    def _at(self, leaves: Weights) -> Weights:
        return {**self._unroll.weights, **leaves}


def _leaves(weights: Weights) -> Weights:
    return {name: value.detach().requires_grad_() for name, value in weights.items()}


def _sum(one: Weights, other: Mapping[str, Tensor]) -> Weights:
    return {name: value + other[name] for name, value in one.items()}
