"""Leap: the initial weights shorten the paths that adaptation takes on the tasks' loss surfaces."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..inner.base import Batch, Meta, Tasks
from .base import ChunkSums, MetaGradient
from .descent import descend, flattened, query_metrics, start_descent, unflattened
from .gradient import mean_gradient
from .maml import Maml


class Leap(Maml):
    """Outer gradient of the path length on the support loss f; memory does not depend on K.

    -sum_k [(w_k+1 - w_k) + Df_k grad f(w_k)] / sqrt(|w_k+1 - w_k|^2 + Df_k^2), Df_k = -|f_k+1 - f_k|
    (Flennerhag et al., eq. 8 with their stabiliser). Queries serve the log only.
    """

    name: ClassVar[str] = "leap"
    paper: ClassVar[str] = "Flennerhag et al., ICLR 2019"
    summary: ClassVar[str] = "shortens the paths of adaptation on the loss surfaces; no second derivatives"
    uses: ClassVar[frozenset[str]] = frozenset()

    def meta_gradient(self, meta: Meta, tasks: Tasks, progress: float) -> MetaGradient:
        """Mean over tasks of the path length's gradient."""
        return mean_gradient(self.config, meta, tasks, lambda part: self._sums(meta, part))

    def _sums(self, meta: Meta, batch: Batch) -> ChunkSums:
        unroll = start_descent(self.network, self.config, meta, batch)
        names, size = list(meta.learned), float(meta.alpha[0, 0])
        weights, benefit = unroll.weights, torch.zeros(())
        pulls = torch.zeros(())
        moved: Tensor | None = None
        before = torch.zeros(())
        for step in descend(unroll, meta.alpha):
            if moved is not None:
                pulls = pulls + _pull(moved, step.losses - before, size)
            moved = flattened([step.weights[name] - weights[name] for name in names])
            before, weights, benefit = step.losses, step.weights, benefit + step.benefit.sum(0)
        assert moved is not None, "at least one step"
        with torch.no_grad():
            pulls = pulls + _pull(moved, unroll.support(weights) - before, size)
        shaped = unflattened(pulls, [weights[name] for name in names])
        grads = {name: value.sum(0) for name, value in zip(names, shaped, strict=True)}
        return ChunkSums(grads, query_metrics(unroll, weights), benefit)


def _pull(moved: Tensor, rise: Tensor, size: float) -> Tensor:
    """One step's part of the gradient (T, P), with grad f(w_k) = -moved / size; 0 where nothing moved."""
    length = (moved.square().sum(1) + rise.square()).sqrt()
    factor = torch.where(length == 0, 0, (1 + rise.abs() / size) / length)
    return -moved * factor[:, None]
