"""FOMAML: MAML with the query gradient at the adapted weights for the outer gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..inner.base import Batch, Meta, Tasks
from .base import ChunkSums, MetaGradient
from .descent import descend, query_gradient, start_descent
from .gradient import mean_gradient, step_weights
from .maml import Maml


class Fomaml(Maml):
    """dL/dw = mean over tasks of grad loss_Q(w_K); memory does not depend on K."""

    name: ClassVar[str] = "fomaml"
    paper: ClassVar[str] = "Finn et al., ICML 2017, section 5.2"
    summary: ClassVar[str] = "MAML without second derivatives: the query gradient at the adapted weights"
    uses: ClassVar[frozenset[str]] = frozenset()

    def meta_gradient(self, meta: Meta, tasks: Tasks, progress: float) -> MetaGradient:
        """Mean over tasks of sum_k v_k * grad loss_Q(w_k), v_K = 1 alone here."""
        weights = step_weights(self.config, progress)
        return mean_gradient(self.config, meta, tasks, lambda part: self._sums(meta, part, weights))

    def _sums(self, meta: Meta, batch: Batch, step_weights: Sequence[float]) -> ChunkSums:
        unroll = start_descent(self.network, self.config, meta, batch)
        total = {name: torch.zeros_like(value) for name, value in meta.learned.items()}
        benefit, metrics = torch.zeros(()), dict[str, Tensor]()
        for step, weight in zip(descend(unroll, meta.alpha), step_weights, strict=True):
            benefit = benefit + step.benefit.sum(0)
            if weight:
                found, metrics = query_gradient(unroll, step.weights)
                total = {name: value + weight * found[name] for name, value in total.items()}
        return ChunkSums(total, metrics, benefit)
