"""K inner steps of meta-training on a chunk of tasks, differentiable in everything that is meta-learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..losses import Loss
from .base import Batch, MethodConfig
from .in_parts import sum_in_parts
from .kinds import Ran, scaled_gradient
from .network import LayerCall, Network
from .ops import Wanted
from .scores import Looked, NoScores, Pass, Scores
from .variants import scores_of

Weights = Mapping[str, Tensor]
MAP_BYTES = 32 * 2**20
"""Larger blocks go back to the system whenever they are freed (see `memory`), and are zeroed page by page."""


@dataclass(frozen=True)
class Step:
    """One inner step's result: new weights, its benefit (T, L), the support loss before it (T,), detached."""

    weights: dict[str, Tensor]
    benefit: Tensor
    losses: Tensor


class Sums(NamedTuple):
    """What one pass adds to the means over a task's samples that a step is made of.

    losses (T,); `plain`, g by parameter name; `scaled`, gamma * g where every sample has its own gamma, else empty;
    `looked`, what a gamma for all samples is made of.
    """

    losses: Tensor
    plain: Weights
    scaled: Weights
    looked: Looked


def rows(tasks: Tensor) -> Tensor:
    """(T, N, ...) as rows n*T + t: (N*T, ...)."""
    return tasks.transpose(0, 1).flatten(0, 1)


def task_losses(loss: Loss, outputs: Tensor, answers: Tensor, tasks: int) -> Tensor:
    """Mean loss per task (T,) from rows."""
    return loss.of_rows(outputs, answers).reshape(-1, tasks).mean(0)


class Unroll:
    """The inner loop of one chunk of T tasks: take `weights`, apply `step` K times, ask `query`.

    What no inner step changes is computed once: values below the lowest open layer are cached.

    Args:
        network: the backbone.
        config: inner-loop settings.
        learned: weights, and attention parameters or channel step sizes.
        open_layers: indices of the layers that may be updated.
        batch: the tasks.
        first_order: cut inner gradients and attention inputs off from the weights; alpha and attention still
            receive dL/dalpha = -<g_Q, gamma * g>.
        query_batch: queries of a task whose graph is held at once; none: as many as maps of `MAP_BYTES` allow.
    """

    def __init__(
        self,
        network: Network,
        config: MethodConfig,
        learned: Weights,
        open_layers: Sequence[int],
        batch: Batch,
        first_order: bool,
        query_batch: int | None = None,
    ) -> None:
        network = network if config.attention else network.fused
        self._network, self._first_order = network, first_order
        self._batch, self._query_batch = batch, query_batch
        self._open = tuple(open_layers)
        self._tasks, self._samples = batch.support_y.shape[:2]
        self._per_sample = config.attention_over == "sample" and config.attention
        self._pass = self._of(self._samples, self._samples)
        self._answers = rows(batch.support_y), rows(batch.query_y)
        self.weights = network.per_task(learned, self._open, self._tasks)
        self._frontier = network.frontier(self._open) or (network.source,)
        self._scores = scores_of(network, config, learned, self._open)

    def step(self, weights: Weights, alpha: Tensor, k: int) -> Step:
        """w <- w - alpha * gamma * g(w) for the open layers; alpha (L,) of this step, the k-th from 0."""
        found = self._sums_at(weights, k)
        updated, benefit = self._update(weights, alpha, found.plain, self._scaled(found))
        return Step(updated, benefit, found.losses.detach())

    def support(self, weights: Weights) -> Tensor:
        """Support loss (T,), differentiable."""
        outputs, _ = self._forward(weights, self._support, self._pass)
        return task_losses(self._network.loss, outputs, self._answers[0], self._tasks)

    def query(self, weights: Weights) -> tuple[Tensor, dict[str, Tensor]]:
        """Query loss summed over tasks, differentiable once; `query_loss` and `query_METRIC`, sums for the log."""
        loss, answers, outputs = self._network.loss, self._answers[1], list[Tensor]()

        def of_some(some: tuple[Weights, Tensor], values: Sequence[Tensor]) -> Tensor:
            known, true = some
            found, _ = self._forward(dict(zip(weights, values, strict=True)), known, self._pass)
            outputs.append(found.detach())
            return loss.of_rows(found, true).sum() * self._tasks / len(answers)

        total = sum_in_parts(of_some, self._query_groups(), [*weights.values()])
        metric = loss.metric_of_rows(torch.cat(outputs), answers).reshape(-1, self._tasks).mean(0)
        return total, {"query_loss": total.detach(), f"query_{loss.metric}": metric.sum()}

    @cached_property
    def _support(self) -> dict[str, Tensor]:
        return self._prefix(self._batch.support_x)

    @cached_property
    def _query(self) -> dict[str, Tensor]:
        return self._prefix(self._batch.query_x)

    def _sums_at(self, weights: Weights, k: int) -> Sums:
        return self._sums(weights, self._support, self._answers[0], self._pass, not self._first_order)

    def _query_groups(self) -> list[tuple[Weights, Tensor]]:
        """Rows and answers of as many query samples at once as keep the largest map below `MAP_BYTES`.

        All at once where that would change the result (batch statistics) or keep a graph below them.
        """
        answers, network = self._answers[1], self._network
        if self._query_batch is not None:
            images, true = rows(self._batch.query_x), answers
            parts = [torch.split(value, self._query_batch * self._tasks) for value in (images, true)]
            return [({network.source: some}, its) for some, its in zip(*parts, strict=True)]
        samples = len(answers) // self._tasks
        words = max(layer.output_words for layer in network.layers) * self._tasks
        count = -(-words * next(iter(self.weights.values())).element_size() * samples // MAP_BYTES)
        mixing = any(network.kind(index).mixes_samples for index in range(len(network.layers)))
        if count <= 1 or mixing or any(value.requires_grad for value in self._query.values()):
            return [(self._query, answers)]

        def split(value: Tensor) -> list[Tensor]:
            return [part.flatten(0, 1) for part in value.reshape(samples, -1, *value.shape[1:]).chunk(count)]

        known = {name: split(value) for name, value in self._query.items()}
        return [
            ({name: parts[i] for name, parts in known.items()}, true) for i, true in enumerate(split(answers))
        ]

    def _of(self, samples: int, count: float | Tensor) -> Pass:
        """A pass over `samples` of each task whose losses count 1 / `count`."""
        return Pass(self._tasks, samples, not self._per_sample, count, count)

    def _prefix(self, images: Tensor) -> dict[str, Tensor]:
        known = {self._network.source: rows(images)}
        values = self._network.run(known, self._call(self.weights, {}, self._pass), self._frontier)
        return dict(zip(self._frontier, values, strict=True))

    def _forward(
        self, weights: Weights, known: Weights, of: Pass, scores: Scores | None = None
    ) -> tuple[Tensor, dict[int, Ran]]:
        ran: dict[int, Ran] = {}
        (logits,) = self._network.run(known, self._call(weights, ran, of, scores))
        return logits, ran

    def _call(
        self, weights: Weights, ran: dict[int, Ran], of: Pass, scores: Scores | None = None
    ) -> LayerCall:
        scores = scores or NoScores(self._network)

        def call(index: int, x: Tensor) -> Tensor:
            wanted = Wanted(
                input=self._network.input_of(index) not in self._frontier,
                weight=index in self._open and not self._per_sample,
            )
            values = [weights[name] for name in self._network.names(index)]
            ran[index] = scores.run(index, x, values, wanted, of)
            return scores.pass_on(index, ran[index].output, of)

        return call

    def _sums(self, weights: Weights, known: Weights, answers: Tensor, of: Pass, graph: bool) -> Sums:
        """Run a pass; without a graph, gradients and what attention looks at are cut off from the weights."""
        source = dict(weights)
        if not graph:
            source = {name: value.detach().requires_grad_() for name, value in source.items()}
            known = {name: value.detach() for name, value in known.items()}
        outputs, ran = self._forward(source, known, of, self._scores)
        losses = of.mean(self._network.loss.of_rows(outputs, answers))
        if not self._open:
            return Sums(losses, {}, {}, ())
        gradients = self._sample_gradients if self._per_sample else self._batch_gradients
        return Sums(losses, *gradients(losses.sum(), source, ran, of, graph))

    def _batch_gradients(
        self, loss: Tensor, source: Weights, ran: Mapping[int, Ran], of: Pass, graph: bool
    ) -> tuple[Weights, Weights, Looked]:
        """g by parameter name, and what gamma is made of."""
        names = [name for i in self._open for name in self._network.names(i)]
        watched = self._scores.watched
        targets = [source[name] for name in names] + [ran[i].output for i in watched]
        found = torch.autograd.grad(loss, targets, create_graph=graph)
        self._scores.release()
        looked = self._scores.look(ran, dict(zip(watched, found[len(names) :], strict=True)), of)
        return dict(zip(names, found[: len(names)], strict=True)), {}, looked

    def _scaled(self, found: Sums) -> Weights:
        """gamma * g by parameter name, gamma from the mean over the support batch."""
        if self._per_sample:
            return found.scaled
        plain, scaled = found.plain, dict(found.plain)
        gammas = self._scores.score(found.looked, self._pass).gammas if plain else {}
        for index, pair in gammas.items():
            own = self._network.names(index)
            changes = self._network.kind(index).scale([plain[name] for name in own], *pair)
            scaled |= zip(own, changes, strict=True)
        return scaled

    def _sample_gradients(
        self, loss: Tensor, source: Weights, ran: Mapping[int, Ran], of: Pass, graph: bool
    ) -> tuple[Weights, Weights, Looked]:
        """mean_n g_n (detached) and mean_n gamma_n * g_n by parameter name, gamma from each sample alone."""
        outputs = [ran[i].output for i in self._open]
        found = torch.autograd.grad(loss, outputs, create_graph=graph)
        gradients = dict(zip(self._open, found, strict=True))
        self._scores.release()
        gammas = self._scores.score(self._scores.look(ran, gradients, of), of).gammas
        plain: dict[str, Tensor] = {}
        scaled: dict[str, Tensor] = {}
        for index, gy in gradients.items():
            own, kind, seen = self._network.names(index), self._network.kind(index), ran[index].seen()
            values = [source[name].detach() for name in own]
            with torch.no_grad():
                plain |= zip(own, kind.gradient(seen, gy, values), strict=True)
            pair = gammas.get(index)
            changes = (
                scaled_gradient(kind, seen, gy, values, pair) if pair else kind.gradient(seen, gy, values)
            )
            scaled |= zip(own, changes, strict=True)
        return plain, scaled, ()

    def _update(
        self, weights: Weights, alpha: Tensor, plain: Weights, scaled: Weights
    ) -> tuple[dict[str, Tensor], Tensor]:
        updated = dict(weights)
        benefit = alpha.new_zeros(self._tasks, len(self._network.layers))
        for index in self._open:
            for name in self._network.names(index):
                change = scaled[name]
                updated[name] = weights[name] - alpha[index] * change
                benefit[:, index] += (plain[name].detach() * change.detach()).flatten(1).sum(1)
        return updated, benefit * alpha.detach()
