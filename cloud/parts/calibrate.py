"""What the device's planner wants to know of each layer and step: a cap on kept channels, the benefit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..inner.device import adapt
from ..inner.network import Network
from ..outer import Batch, Meta, MethodConfig

PERCENTILE = 0.99


@dataclass(frozen=True)
class Calibration:
    """Measured on tasks at the device's semantics (per sample).

    Attributes:
        caps: per layer, per step: the 99th percentile, rounded up to a count that occurs, of the channels that
            forward attention keeps for one sample, 0 where the layer is not updated; None without attention.
        benefits: per layer, per step: mean over tasks of alpha * <g, gamma * g>, to first order the decrease
            of the loss.
    """

    caps: tuple[tuple[int, ...] | None, ...]
    benefits: tuple[tuple[float, ...], ...]


def calibrate(network: Network, config: MethodConfig, meta: Meta, batches: Iterable[Batch]) -> Calibration:
    """Adapt to every task and gather what was kept and what it brought."""
    counts: dict[tuple[str, int], list[Tensor]] = {}
    benefits = []
    for batch in batches:
        adapted = adapt(network, config, meta, batch.support_x, batch.support_y)
        benefits.append(adapted.benefit.detach().to(torch.float64))
        for step, kept in enumerate(adapted.kept):
            for name, mask in kept.items():
                counts.setdefault((name, step), []).append(mask.sum(-1).flatten())
    caps = tuple(_caps(layer.name, len(meta.alpha), counts) for layer in network.layers)
    mean = torch.cat(benefits).mean(0).T
    return Calibration(caps, tuple(tuple(row) for row in mean.tolist()))


def _caps(layer: str, steps: int, counts: dict[tuple[str, int], list[Tensor]]) -> tuple[int, ...] | None:
    found = [counts.get((f"{layer}.fw", step)) for step in range(steps)]
    if all(samples is None for samples in found):
        return None
    return tuple(0 if samples is None else percentile(torch.cat(samples)) for samples in found)


def percentile(counts: Tensor) -> int:
    """The smallest count that at least 99 % of the samples do not exceed."""
    return int(counts.to(torch.float64).quantile(PERCENTILE, interpolation="higher"))
