"""Accuracy on many tasks at the device's semantics, with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .inner.device import adapt, outputs_of, query_logits
from .inner.network import Network
from .outer import Batch, Meta, MethodConfig

Z95 = 1.959964


@dataclass(frozen=True)
class Score:
    """Mean query accuracy over tasks.

    Attributes:
        accuracy: after adaptation, in [0, 1].
        ci95: half width of the 95 % interval, 1.96 standard errors over tasks.
        loss: mean query cross-entropy after adaptation.
        tasks: how many.
        accuracy_before: without adaptation, see `accuracy_before`; None where it was not measured.
    """

    accuracy: float
    ci95: float
    loss: float
    tasks: int
    accuracy_before: float | None = None


def measure(
    network: Network,
    config: MethodConfig,
    meta: Meta,
    batches: Iterable[Batch],
    tick: Callable[[int], object] = lambda done: None,
    batch: int | None = None,
) -> Score:
    """Adapt to every task as the device does and score its queries.

    Args:
        network: the backbone.
        config: attention settings.
        meta: where adaptation starts.
        batches: the tasks.
        tick: is told the number of tasks after each of `batches`.
        batch: support samples run at once, see `adapt`.
    """
    rows = []
    for tasks in batches:
        rows.append(_score(network, config, meta, tasks, batch))
        tick(len(tasks))
    accuracy, loss = torch.cat(rows).T
    return Score(float(accuracy.mean()), interval(accuracy), float(loss.mean()), len(accuracy))


@torch.no_grad()
def accuracy_before(network: Network, meta: Meta, batches: Iterable[Batch]) -> float:
    """Mean query accuracy of the meta-learned weights without any adaptation (about 1/ways)."""
    hits = []
    for batch in batches:
        logits = outputs_of(network, network.per_task(meta.learned, (), len(batch)), batch.query_x)
        hits.append((logits.argmax(-1) == batch.query_y).flatten())
    return float(torch.cat(hits).to(torch.float64).mean())


def interval(values: Tensor) -> float:
    """Half width of the 95 % interval of the mean of independent values, float (n,), n >= 2."""
    return Z95 * float(values.std(correction=1)) / math.sqrt(len(values))


def _score(network: Network, config: MethodConfig, meta: Meta, tasks: Batch, batch: int | None) -> Tensor:
    """Query accuracy and loss of each task after adaptation, float64 (T, 2)."""
    adapted = adapt(network, config, meta, tasks.support_x, tasks.support_y, batch=batch)
    logits, labels = query_logits(network, adapted, tasks.query_x), tasks.query_y
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    hits = logits.argmax(-1) == labels
    return torch.stack([hits.to(torch.float64).mean(1), losses.to(torch.float64).mean(1)], 1)
