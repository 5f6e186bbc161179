"""Reptile: the initial weights move towards where adaptation leads."""

from __future__ import annotations

from typing import ClassVar

import torch

from ..inner.base import Batch, Meta, Tasks
from .base import ChunkSums, MetaGradient
from .descent import descend, query_metrics, start_descent
from .gradient import mean_gradient
from .maml import Maml


class Reptile(Maml):
    """Outer gradient mean(w - w_K); queries serve the log only, memory does not depend on K."""

    name: ClassVar[str] = "reptile"
    paper: ClassVar[str] = "Nichol et al., arXiv 1803.02999"
    summary: ClassVar[str] = (
        "moves the initial weights towards the adapted ones; no outer loss, no second derivatives"
    )
    uses: ClassVar[frozenset[str]] = frozenset()

    def meta_gradient(self, meta: Meta, tasks: Tasks, progress: float) -> MetaGradient:
        """Mean over tasks of w - w_K."""
        return mean_gradient(self.config, meta, tasks, lambda part: self._sums(meta, part))

    def _sums(self, meta: Meta, batch: Batch) -> ChunkSums:
        unroll = start_descent(self.network, self.config, meta, batch)
        weights, benefit = unroll.weights, torch.zeros(())
        for step in descend(unroll, meta.alpha):
            weights, benefit = step.weights, benefit + step.benefit.sum(0)
        grads = {name: (unroll.weights[name] - weights[name]).sum(0) for name in meta.learned}
        return ChunkSums(grads, query_metrics(unroll, weights), benefit)
