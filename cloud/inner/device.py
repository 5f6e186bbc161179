"""Adaptation as the device does it: per-sample attention, mean of gamma_n * g_n, frozen layers skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Meta, MethodConfig
from .kinds import Ran, scaled_gradient
from .network import LayerCall, Network
from .ops import Wanted
from .scores import NoScores, Pass, Scores
from .unroll import rows, task_losses
from .variants import scores_of

Selections = Sequence[Mapping[str, Tensor]]
Caps = Sequence[Mapping[str, int]]
FROZEN = Wanted(input=True, weight=False)


@dataclass(frozen=True)
class Adapted:
    """What K steps on T tasks leave behind.

    Attributes:
        weights: every parameter by name; those of updated layers have a leading task dimension (T, ...).
        losses: support loss before each step, (T, K).
        kept: per step, `LAYER.fw` or `LAYER.bw` -> bool (T, N, C), True where a channel was kept.
        benefit: alpha * <g, gamma * g>, the first-order loss decrease, (T, K, L).
        gammas: per step, layer index -> (fw, bw), each (T, N, C), of the layers whose gradients were scaled.
    """

    weights: dict[str, Tensor]
    losses: Tensor
    kept: Selections
    benefit: Tensor
    gammas: Sequence[Mapping[int, tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class _Part:
    """Samples start..stop-1 of every task, run at once: their answers, and what no step changes, as rows."""

    start: int
    stop: int
    answers: Tensor
    known: dict[str, Tensor]


@dataclass(frozen=True)
class _Pass:
    """One part forward and backward, as rows: what layers saw, own-loss output gradients, gamma, selections."""

    losses: Tensor
    seen: dict[int, Tensor]
    gradients: dict[int, Tensor]
    gammas: dict[int, tuple[Tensor, Tensor]]
    kept: dict[str, Tensor]


@torch.no_grad()
def adapt(
    network: Network,
    config: MethodConfig,
    meta: Meta,
    support_x: Tensor,
    support_y: Tensor,
    recorded: Selections | None = None,
    caps: Caps | None = None,
    batch: int | None = None,
) -> Adapted:
    """K inner steps on T tasks at once, in the dtype of its inputs (float64 makes it a reference).

    Args:
        network: the backbone.
        config: attention settings; the number of steps is that of meta.alpha.
        meta: where adaptation starts.
        support_x: (T, N, C, H, W).
        support_y: labels in [0, ways), int64 (T, N), or targets, float (T, N, outputs).
        recorded: channel selections to use instead of computing them (parity tests).
        caps: per step, the most kept channels by module key `LAYER.fw` or `LAYER.bw`.
        batch: samples run at once, their gradients accumulated; attention averages over them (the paper), and
            BatchNorm has their statistics. None: all at once, attention per sample, which without BatchNorm is
            what the device computes whatever its micro-batch.
    """
    device = _Device(network, config, meta, support_x, support_y, batch)
    weights, losses, kept, benefits, gammas = device.weights, [], [], [], []
    for k in range(len(meta.alpha)):
        scores = device.scores(k, caps[k] if caps else None)
        passes = [
            device.run(weights, k, part, scores, recorded[k] if recorded else None) for part in device.parts
        ]
        weights, benefit = device.update(weights, k, passes)
        losses.append(torch.stack([found.losses for found in passes]).sum(0))
        kept.append(
            {key: _joined([found.kept[key] for found in passes], support_y) for key in passes[0].kept}
        )
        gammas.append(
            {
                index: (
                    _joined([found.gammas[index][0] for found in passes], support_y),
                    _joined([found.gammas[index][1] for found in passes], support_y),
                )
                for index in passes[0].gammas
            }
        )
        benefits.append(benefit)
    return Adapted(weights, torch.stack(losses, 1), kept, torch.stack(benefits, 1), gammas)


def query_logits(network: Network, adapted: Adapted, query_x: Tensor) -> Tensor:
    """Outputs (T, M, outputs) of adapted tasks on their queries (T, M, C, H, W); not differentiable."""
    return outputs_of(network, adapted.weights, query_x)


@torch.no_grad()
def outputs_of(network: Network, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Outputs (T, M, outputs) for samples (T, M, ...) of T tasks, by weights that are shared or (T, ...)."""

    def call(index: int, x: Tensor) -> Tensor:
        values = [weights[name] for name in network.names(index)]
        return network.kind(index).forward(x, values, FROZEN).output

    (outputs,) = network.run({network.source: rows(x)}, call)
    return _tasks(outputs, x)


def _joined(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """Rows of several parts as (T, N, C)."""
    return _tasks(torch.cat([*parts]), like)


def _tasks(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(like.shape[1], like.shape[0], -1).transpose(0, 1)


class _Device:
    """T tasks on the device: everything below the layers that any step updates is computed once."""

    def __init__(
        self, network: Network, config: MethodConfig, meta: Meta, x: Tensor, y: Tensor, batch: int | None
    ) -> None:
        self._network, self._config, self._meta = network, config, meta
        self._averages = batch is not None
        self._tasks, self._samples = y.shape[:2]
        updated = torch.nonzero(meta.updated).flatten().tolist()
        self.weights = network.per_task(meta.learned, updated, self._tasks)
        self._frontier = network.frontier(updated) or (network.source,)
        size = batch or self._samples
        starts = range(0, self._samples, size)
        self.parts = [self._part(x[:, at : at + size], y[:, at : at + size], at) for at in starts]

    def _part(self, x: Tensor, y: Tensor, start: int) -> _Part:
        values = {self._network.source: rows(x)}
        prefix = self._network.run(values, self._call(self.weights, (), {}), self._frontier)
        return _Part(start, start + y.shape[1], rows(y), dict(zip(self._frontier, prefix, strict=True)))

    def run(
        self,
        weights: Mapping[str, Tensor],
        k: int,
        part: _Part,
        scores: Scores,
        recorded: Mapping[str, Tensor] | None,
    ) -> _Pass:
        """One part forward and backward: for each layer that step k updates, all that its change is made of."""
        ran: dict[int, Ran] = {}
        updated, samples = self._updated(k), part.stop - part.start
        of = self._of(samples)
        with torch.enable_grad():
            (outputs,) = self._network.run(part.known, self._call(weights, updated, ran, scores, of))
            total = self._network.loss.of_rows(outputs, part.answers).sum()
        grads = torch.autograd.grad(total, [ran[i].output for i in updated]) if updated else ()
        gradients = dict(zip(updated, grads, strict=True))
        losses = task_losses(self._network.loss, outputs.detach(), part.answers, self._tasks)
        seen = {i: ran[i].seen().detach() for i in updated}
        scores.release()
        gammas, kept = scores.score(scores.look(ran, gradients, of), of, self._recorded(recorded, part))
        return _Pass(
            losses * samples / self._samples,
            seen,
            gradients,
            {i: (self._as_rows(fw, samples), self._as_rows(bw, samples)) for i, (fw, bw) in gammas.items()},
            {key: self._as_rows(value, samples) for key, value in kept.items()},
        )

    def scores(self, k: int, caps: Mapping[str, int] | None) -> Scores:
        """What scales the gradients of step k."""
        return scores_of(self._network, self._config, self._meta.learned, self._updated(k), caps)

    def update(
        self, weights: Mapping[str, Tensor], k: int, passes: Sequence[_Pass]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """w <- w - alpha * mean_n(gamma_n * g_n), and the benefit (T, L)."""
        changed = dict(weights)
        benefit = passes[0].losses.new_zeros(self._tasks, len(self._network.layers))
        for index in self._updated(k):
            names, alpha = self._network.names(index), self._meta.alpha[k, index]
            found = [self._gradients(index, weights, one) for one in passes]
            plain, scaled = (
                [torch.stack(parts).sum(0) for parts in zip(*side, strict=True)]
                for side in zip(*found, strict=True)
            )
            for name, g, change in zip(names, plain, scaled, strict=True):
                changed[name] = weights[name] - alpha * change
                benefit[:, index] += alpha * (g * change).flatten(1).sum(1)
        return changed, benefit

    def _gradients(
        self, index: int, weights: Mapping[str, Tensor], found: _Pass
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The part's share of mean_n g_n and mean_n gamma_n * g_n of one layer's parameters, per task."""
        kind = self._network.kind(index)
        values = [weights[name] for name in self._network.names(index)]
        seen, gy = found.seen[index], found.gradients[index] / self._samples
        plain = scaled = kind.gradient(seen, gy, values)
        if index in found.gammas:
            scaled = scaled_gradient(kind, seen, gy, values, found.gammas[index])
        return plain, scaled

    def _recorded(self, recorded: Mapping[str, Tensor] | None, part: _Part) -> dict[str, Tensor] | None:
        if recorded is None:
            return None
        own = {key: value[:, part.start : part.stop] for key, value in recorded.items()}
        return {key: value[:, 0] if self._averages else rows(value) for key, value in own.items()}

    def _as_rows(self, value: Tensor, samples: int) -> Tensor:
        return value.repeat(samples, 1) if self._averages else value

    def _of(self, samples: int) -> Pass:
        return Pass(self._tasks, samples, self._averages)

    def _updated(self, k: int) -> list[int]:
        return torch.nonzero(self._meta.alpha[k]).flatten().tolist()

    def _call(
        self,
        weights: Mapping[str, Tensor],
        watched: Sequence[int],
        ran: dict[int, Ran],
        scores: Scores | None = None,
        of: Pass | None = None,
    ) -> LayerCall:
        scores, of = scores or NoScores(self._network), of or self._of(self._samples)

        def call(index: int, x: Tensor) -> Tensor:
            values = [weights[name] for name in self._network.names(index)]
            ran[index] = scores.run(index, x, values, FROZEN, of)
            y = ran[index].output
            y = y if y.requires_grad or index not in watched else y.requires_grad_()
            return scores.pass_on(index, y, of)

        return call
