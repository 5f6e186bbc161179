"""Accuracy on many tasks at the device's semantics, with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .inner.device import adapt, query_logits
from .inner.network import Network, forward
from .outer import Batch, Meta, MethodConfig

Z95 = 1.959964


@dataclass(frozen=True)
class Score:
    """Mean query accuracy over tasks.

    Attributes:
        accuracy: after adaptation, in [0, 1].
        ci95: half width of the 95 % interval, 1.96 standard errors over tasks.
        accuracy_before: of the meta-learned weights without adaptation (about 1/ways).
        loss: mean query cross-entropy after adaptation.
        tasks: how many.
    """

    accuracy: float
    ci95: float
    accuracy_before: float
    loss: float
    tasks: int


def measure(
    network: Network,
    config: MethodConfig,
    meta: Meta,
    batches: Iterable[Batch],
    tick: Callable[[int], object] = lambda done: None,
) -> Score:
    """Adapt to every task as the device does and score its queries; `tick` is told each batch's tasks."""
    rows = []
    for batch in batches:
        rows.append(_score(network, config, meta, batch))
        tick(len(batch))
    after, before, loss = torch.cat(rows).T
    return Score(float(after.mean()), interval(after), float(before.mean()), float(loss.mean()), len(after))


def interval(values: Tensor) -> float:
    """Half width of the 95 % interval of the mean of independent values, float (n,), n >= 2."""
    return Z95 * float(values.std(correction=1)) / math.sqrt(len(values))


def _score(network: Network, config: MethodConfig, meta: Meta, batch: Batch) -> Tensor:
    """Accuracy after and before adaptation and query loss of each task, float64 (T, 3)."""
    adapted = adapt(network, config, meta, batch.support_x, batch.support_y)
    labels = batch.query_y
    with torch.no_grad():
        logits = query_logits(network, adapted, batch.query_x)
        plain = forward(network, network_weights(network, meta), batch.query_x.flatten(0, 1))
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    before = plain.view(*labels.shape, -1)
    hits = [(values.argmax(-1) == labels).to(torch.float64).mean(1) for values in (logits, before)]
    return torch.stack([*hits, losses.to(torch.float64).mean(1)], 1)


def network_weights(network: Network, meta: Meta) -> dict[str, Tensor]:
    """The backbone's own parameters among what was meta-learned."""
    return {name: meta.learned[name] for name, _ in network.module.named_parameters()}
