"""What adaptation updates, and how much samples differ in it (p-Meta, figure 5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from ...edge.cost import Layer
from ..errors import ConfigError
from ..inner.device import Adapted, adapt
from ..inner.network import Network
from ..outer import Batch, Meta, MethodConfig
from ..parts.assemble import draw_all, fixed_sampler, load_split
from ..run.trained import TrainedRun, load_run

PAIRING_SEED = 0


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over samples."""

    mean: float
    std: float


@dataclass(frozen=True)
class Selection:
    """Figure 5's numbers for K steps and L layers.

    Attributes:
        layers: names.
        ratios: per step, per layer: the share of a weight's entries that a sample updates, 0 where alpha is 0.
        similarity: per layer: cosine between the scores of two random samples in the first step, where all samples
            meet the same weights; None where that step scales nothing, or there are no two samples.
        tasks: how many were adapted to.
    """

    layers: tuple[str, ...]
    ratios: tuple[tuple[Spread, ...], ...]
    similarity: tuple[Spread | None, ...]
    tasks: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def selection(run: TrainedRun | str | PathLike[str], *, tasks: int = 100) -> Selection:
    """Adapt a finished run to fixed test tasks, attention per sample, no caps, and see what is updated.

    Raises:
        ConfigError: no finished run, one of a learner without inner steps or whose attention scales no gradients,
            or fewer than one task.
    """
    if tasks < 1:
        raise ConfigError(f"tasks must be at least 1, got {tasks}")
    trained = run if isinstance(run, TrainedRun) else load_run(run)
    if not isinstance(trained, TrainedRun):
        raise ConfigError(
            f"{trained.path}: {trained.config.method.name} has no inner steps that update layers"
        )
    if trained.config.method.attention and trained.config.method.attention_masks != "gradients":
        raise ConfigError(
            f"{trained.path}: its attention masks maps, not gradients, so every entry of a weight is updated"
        )
    sampler = fixed_sampler(load_split(trained.config.data, "test", trained.spec), trained.config.task)
    return selection_of(
        trained.parts.network, trained.parts.method.config, trained.meta, draw_all(sampler, tasks)
    )


def selection_of(network: Network, config: MethodConfig, meta: Meta, batches: Iterable[Batch]) -> Selection:
    """The same on given tasks."""
    found, tasks = [], 0
    for batch in batches:
        found.append(adapt(network, config, meta, batch.support_x, batch.support_y))
        tasks += len(batch)
    steps, layers = range(len(meta.alpha)), range(len(network.layers))
    ratios = tuple(
        tuple(_ratio(network.layers[i], float(meta.alpha[k, i]), found, k, i) for i in layers) for k in steps
    )
    similarity = tuple(_similarity(network.layers[i], found, i) for i in layers)
    return Selection(tuple(layer.name for layer in network.layers), ratios, similarity, tasks)


def updated_share(layer: Layer, fw: Tensor, bw: Tensor) -> Tensor:
    """Share of a weight's entries with gamma not zero, (rows,), from scores (rows, C_in) and (rows, C_out)."""
    inner, outer = (_grouped(layer, (side != 0).to(side.dtype)) for side in (fw, bw))
    return (inner.mean(-1) * outer.mean(-1)).mean(-1)


def cosine(layer: Layer, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Cosine, (rows,), between the two gammas of a weight, each from (fw, bw).

    0 where one of them is 0, as a norm's is if its two sides keep different channels.
    """
    lengths = (_product(layer, first, first) * _product(layer, second, second)).sqrt()
    return _product(layer, first, second) / torch.where(lengths > 0, lengths, 1)


def _product(layer: Layer, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Inner product of two gammas: gamma[b, a] = bw[b] * fw[a] within each group."""
    inner, outer = (_grouped(layer, a * b) for a, b in zip(first, second, strict=True))
    return (inner.sum(-1) * outer.sum(-1)).sum(-1)


def _grouped(layer: Layer, scores: Tensor) -> Tensor:
    """(rows, groups, C / groups); a norm's weight is diagonal, each channel a group of its own."""
    groups = layer.channels_out if layer.kind == "norm" else layer.groups
    return scores.reshape(len(scores), groups, -1)


def _ratio(layer: Layer, alpha: float, found: Iterable[Adapted], step: int, index: int) -> Spread:
    scored = [adapted.gammas[step].get(index) for adapted in found]
    if alpha == 0 or None in scored:
        return Spread(float(alpha != 0), 0.0)
    return _spread(updated_share(layer, *_rows(scored)))


def _similarity(layer: Layer, found: Iterable[Adapted], index: int) -> Spread | None:
    scored = [adapted.gammas[0].get(index) for adapted in found]
    if None in scored:
        return None
    fw, bw = _rows(scored)
    order = torch.randperm(len(fw), generator=torch.Generator().manual_seed(PAIRING_SEED))
    half = len(fw) // 2
    if half == 0:
        return None
    first, second = order[:half], order[half : 2 * half]
    return _spread(cosine(layer, (fw[first], bw[first]), (fw[second], bw[second])))


def _rows(scored: Iterable[tuple[Tensor, Tensor] | None]) -> tuple[Tensor, Tensor]:
    """The scores of all tasks' samples, (samples, C) each."""
    fw, bw = zip(*(pair for pair in scored if pair is not None), strict=True)
    return torch.cat([part.flatten(0, 1) for part in fw]), torch.cat([part.flatten(0, 1) for part in bw])


def _spread(values: Tensor) -> Spread:
    exact = values.to(torch.float64)
    return Spread(float(exact.mean()), float(exact.std(correction=0)))
