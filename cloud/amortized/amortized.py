"""What the amortized learners share: the gradient of a task, query batch by query batch, each with a fresh H."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..inner.base import Meta, MethodConfig
from ..lite import LiteConfig, Subset, draw, generator_of
from ..outer.base import MetaGradient
from ..outer.gradient import clamped
from ..tasks.task import Task
from .base import refuse_unused
from .episode import Episode, Exact, Subsets
from .extractor import extractor_of, frozen_norms
from .film import film_sizes, neutral
from .modules import Modules

METRICS = ("query_loss", "query_accuracy", "active_layers")


class Amortized(ABC):
    """A learner whose head comes from the features of the support set; subclasses add the head.

    Attributes:
        frozen: whether the extractor keeps its weights and only what is around it is learned.

    Raises:
        ValueError: a setting that would have no effect, or a backbone that cannot be the extractor.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str]
    uses: ClassVar[frozenset[str]] = frozenset()
    frozen: ClassVar[bool]

    def __init__(
        self, module: nn.Module, sample_shape: tuple[int, ...], method: MethodConfig, lite: LiteConfig
    ) -> None:
        refuse_unused(type(self), method)
        self.method, self.lite, self.sample_shape = method, lite, tuple(sample_shape)
        self._extractor, self._features = extractor_of(module, self.sample_shape)
        self.modules = self._seeded(0)
        self._neutral = neutral(film_sizes(self.modules.extractor, self.modules.films))

    @property
    def needs_weights(self) -> str:
        """Why the extractor's weights must come from an earlier training; empty where they need not."""
        norms = frozen_norms(self._extractor)
        if self.frozen:
            return f"{self.name} keeps its extractor as it is, so it needs one that has been trained before"
        if norms:
            return (
                f"{norms[0]} is a BatchNorm, whose statistics stay frozen (live ones would make a sample's features "
                "depend on the samples beside it), so they have to come from an earlier training"
            )
        return ""

    def init(self, seed: int) -> Meta:
        """The backbone's weights as they were given, and freshly initialised generators."""
        modules = self._seeded(seed)
        tensors, statistics = modules.tensors(), modules.statistics()
        fixed = {
            name: value
            for name, value in tensors.items()
            if name in statistics or (self.frozen and name.startswith("extractor."))
        }
        return Meta({name: value for name, value in tensors.items() if name not in fixed}, fixed)

    def meta_gradient(self, meta: Meta, tasks: Sequence[Task], progress: float) -> MetaGradient:
        """Mean over tasks of the gradient of the mean loss over a task's queries."""
        grads = {name: torch.zeros_like(value) for name, value in meta.learned.items()}
        metrics = dict.fromkeys(METRICS, 0.0)
        for task in tasks:
            found = self.task_gradient(meta, task)
            grads = {name: grads[name] + grad / len(tasks) for name, grad in found.grads.items()}
            metrics = {name: value + found.metrics[name] / len(tasks) for name, value in metrics.items()}
        if self.method.gradient_clamp is not None:
            grads = {name: clamped(value, self.method.gradient_clamp) for name, value in grads.items()}
        return MetaGradient(grads, metrics, torch.zeros(0))

    def after_step(self, meta: Meta, result: MetaGradient, progress: float) -> Meta:
        """Nothing to project."""
        return meta

    def param_groups(self, meta: Meta, lr: float) -> list[dict[str, Any]]:
        """One Adam group at rate lr."""
        return [{"names": list(meta.learned), "params": list(meta.learned.values()), "lr": lr}]

    @torch.no_grad()
    def logits(self, meta: Meta, task: Task) -> Tensor:
        """Logits of all queries, (M, ways), after the whole support set was seen; no graph, in float32 as devices."""
        as_device = replace(self.lite, precision="float32")
        episode = self._episode({**meta.fixed, **meta.learned}, task, as_device)
        exact = episode.exact()
        film = None if exact.embeddings is None else episode.film_of(exact.embeddings)
        size = self.lite.query_batch or self.lite.chunk or len(task.query)
        queries = [episode.queries(rows, film) for rows in torch.split(torch.arange(len(task.query)), size)]
        return self.head(episode, exact.features, torch.cat(queries))

    def exact(self, meta: Meta, task: Task) -> Exact:
        """What the whole support set gives without graph, for several calls of `task_gradient`."""
        return self._episode({**meta.fixed, **meta.learned}, task).exact()

    def task_gradient(
        self, meta: Meta, task: Task, exact: Exact | None = None, chosen: Subsets | None = None
    ) -> MetaGradient:
        """Gradient, by learned name, of the mean loss over one task's queries.

        Args:
            meta: what adaptation starts from.
            task: the task.
            exact: what `exact` gave for these two; None: computed here where it is needed.
            chosen: H of each level, for studies of the estimator; None: drawn afresh for each query batch.

        Raises:
            ValueError: H is larger than the support set.
        """
        learned = {name: value.detach().requires_grad_() for name, value in meta.learned.items()}
        episode = self._episode({**meta.fixed, **learned}, task)
        if exact is None and (episode.fixed_features or self.lite.h is not None or chosen is not None):
            exact = episode.exact()
        grads = {name: torch.zeros_like(value) for name, value in learned.items()}
        metrics, count = dict.fromkeys(METRICS, 0.0), len(task.query)
        for batch, rows in enumerate(torch.split(torch.arange(count), self.lite.query_batch or count)):
            subsets = chosen or partial(self._drawn, task, batch)
            loss, found = self._loss(episode, rows, exact, subsets)
            grads = {name: grads[name] + part for name, part in _gradients(loss, learned).items()}
            metrics = {name: value + found.get(name, 0.0) for name, value in metrics.items()}
        return MetaGradient(grads, metrics, torch.zeros(0))

    @abstractmethod
    def head(self, episode: Episode, features: Tensor, queries: Tensor) -> Tensor:
        """Logits (m, ways) of query features (m, D), from the features of the support set (N, D)."""

    def build(self, extractor: nn.Module, features: int) -> Modules:
        """The modules around an extractor of its own; random weights come from torch's global state."""
        return Modules(extractor, (), None, None, None, features)

    def _seeded(self, seed: int) -> Modules:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build(copy.deepcopy(self._extractor), self._features).in_eval_mode()

    def _episode(self, weights: dict[str, Tensor], task: Task, lite: LiteConfig | None = None) -> Episode:
        fixed_features = self.frozen and not self.modules.films
        return Episode(self.modules, weights, lite or self.lite, task, fixed_features)

    def _drawn(self, task: Task, batch: int, level: int) -> Subset | None:
        """H of one level for one batch of queries."""
        if self.lite.h is None:
            return None
        labels = task.support_y if self.lite.stratified else None
        return draw(len(task.support), self.lite.h, generator_of(task.key, level, 0, batch), labels)

    def _loss(
        self, episode: Episode, rows: Tensor, exact: Exact | None, subsets: Subsets
    ) -> tuple[Tensor, dict[str, float]]:
        """What some of a task's queries add to its loss, and to its metrics; the FiLM penalty in proportion."""
        film = episode.film(exact, subsets)
        queries = episode.queries(rows, film)
        logits = self.head(episode, episode.features(film, exact, subsets, queries), queries)
        labels, count = episode.task.query_y[rows].to(logits.device), len(episode.task.query)
        loss = F.cross_entropy(logits, labels, reduction="sum") / count
        metrics = {
            "query_loss": float(loss.detach()),
            "query_accuracy": float((logits.argmax(1) == labels).sum()) / count,
        }
        if film is not None:
            away = (film - self._neutral.to(film)).square().sum()
            loss = loss + self.method.film_penalty * away * len(rows) / count
        return loss, metrics


def _gradients(loss: Tensor, learned: dict[str, Tensor]) -> dict[str, Tensor]:
    """d(loss)/d(learned) by name; a learner without FiLM layers and generated head learns nothing."""
    if not learned:
        return {}
    found = torch.autograd.grad(loss, list(learned.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(learned, found, strict=True))
