"""Inner steps that leave no graph behind: the memory of one step, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..inner.base import Batch, Meta, MethodConfig
from ..inner.network import Network
from ..inner.unroll import Step, Unroll


def start_descent(network: Network, config: MethodConfig, meta: Meta, batch: Batch) -> Unroll:
    """The inner loop of T tasks in which every layer may change, cut off from the meta-learned weights."""
    learned = {name: value.detach() for name, value in meta.learned.items()}
    return Unroll(network, config, learned, range(len(network.layers)), batch, first_order=True)


def descend(unroll: Unroll, sizes: Tensor, pulls: Mapping[str, float] | None = None) -> Iterator[Step]:
    """The steps w <- w - alpha * (g(w) + pull * (w - w_0)), one after the other, all detached.

    Args:
        unroll: the tasks, of first order.
        sizes: (K, L), constants.
        pulls: alpha * pull by parameter name for the weights that a quadratic holds near w_0.
    """
    start = {name: value.detach() for name, value in unroll.weights.items()}
    weights = start
    for k, size in enumerate(sizes):
        step = unroll.step(weights, size, k)
        held = {
            name: step.weights[name] - pull * (weights[name] - start[name])
            for name, pull in (pulls or {}).items()
        }
        weights = {**step.weights, **held}
        yield replace(step, weights=weights)


def query_gradient(
    unroll: Unroll, weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """d(query loss)/dw at adapted weights (T, ...), summed over tasks; query loss and metric, summed too."""
    leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
    losses, metrics = unroll.query(leaves)
    found = torch.autograd.grad(losses.sum(), list(leaves.values()))
    return {name: value.sum(0) for name, value in zip(leaves, found, strict=True)}, metrics


@torch.no_grad()
def query_metrics(unroll: Unroll, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query loss and metric, summed over tasks."""
    return unroll.query(weights)[1]


def flattened(values: Sequence[Tensor]) -> Tensor:
    """Per-task tensors (T, ...) as the rows of one matrix (T, P)."""
    return torch.cat([value.flatten(1) for value in values], 1)


def unflattened(rows: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The tensors that `flattened` made rows of."""
    parts = torch.split(rows, [value[0].numel() for value in like], 1)
    return [part.reshape(value.shape) for part, value in zip(parts, like, strict=True)]
