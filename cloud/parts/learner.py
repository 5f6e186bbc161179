"""Runs of learners that adapt by forward passes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...edge.inputs import InputSpec
from ..amortized import LEARNERS, Learner
from ..amortized.base import EVERYWHERE
from ..config import RunConfig
from ..errors import ConfigError, TrainingError
from ..losses import Loss
from ..outer import Meta, MetaGradient, MethodConfig
from ..tasks import TaskSampler
from .base import Conclusion, Tick
from .batches import tasks_of
from .initial import from_checkpoint, is_checkpoint, load_extractor
from .score import Score, score_of


@contextmanager
def _as_training_error() -> Iterator[None]:
    """What a learner cannot compute with, although the settings were fine."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise TrainingError(str(error)) from None


@dataclass(frozen=True)
class LearnerParts:
    """A learner on its backbone; see `Parts`.

    Attributes:
        config: the settings in force.
        spec: of an image.
        module: the backbone with its classifier, freshly initialised.
        learner: what was made of it.
    """

    config: RunConfig
    spec: InputSpec
    module: nn.Module
    learner: Learner

    @classmethod
    def of(cls, config: RunConfig, spec: InputSpec, module: nn.Module) -> LearnerParts:
        """Make the learner; raises ValueError for a backbone or a setting that it cannot work with."""
        learner = LEARNERS[config.method.name](module, spec.shape, config.method, config.lite)
        return cls(config, spec, module, learner)

    @property
    def loss(self) -> Loss:
        """See `Parts`."""
        return self.config.loss

    def init(self) -> Meta:
        """Random weights, or those of an earlier training, which some learners and some norms cannot do without."""
        weights, seed = self.config.train.initial_weights, self.config.seed
        if weights is not None and is_checkpoint(Path(weights)):
            return from_checkpoint(self.learner.init(seed), Path(weights))
        if weights is not None:
            module = copy.deepcopy(self.module)
            load_extractor(module, self.learner.modules.extractor, Path(weights))
            return LearnerParts.of(self.config, self.spec, module).learner.init(seed)
        if self.learner.needs_weights:
            raise ConfigError(
                f"train.initial_weights: {self.learner.needs_weights}; name a file, such as meta-train pretrain "
                "leaves behind"
            )
        return self.learner.init(seed)

    def meta_gradient(self, meta: Meta, tasks: TaskSampler, first: int, progress: float) -> MetaGradient:
        """See `Parts`."""
        drawn = list(tasks_of(tasks, first, self.config.train.tasks_per_step))
        with _as_training_error():
            return self.learner.meta_gradient(meta, drawn, progress)

    def after_step(self, meta: Meta, result: MetaGradient, progress: float) -> Meta:
        """See `Parts`."""
        return self.learner.after_step(meta, result, progress)

    def param_groups(self, meta: Meta, lr: float) -> list[dict[str, Any]]:
        """See `Parts`."""
        return self.learner.param_groups(meta, lr)

    def eligible(self, meta: Meta, progress: float) -> bool:
        """Always."""
        return True

    def measure(
        self,
        meta: Meta,
        tasks: TaskSampler,
        count: int,
        tick: Tick = lambda done: None,
        batch: int | None = None,
    ) -> Score:
        """See `Parts`; the whole support set counts, however it is cut in pieces."""
        if batch is not None:
            raise ConfigError(
                f"batch: {batch} would have no effect, {self.learner.name} takes samples one by one"
            )
        return score_of(self._rows(meta, tasks, count, tick), self.loss)

    def _rows(self, meta: Meta, tasks: TaskSampler, count: int, tick: Tick) -> Iterator[Tensor]:
        """Accuracy and loss of each task's queries, float64 (1, 2)."""
        for task in tasks_of(tasks, 0, count):
            with _as_training_error():
                logits = self.learner.logits(meta, task)
            labels = task.query_y.to(logits.device)
            columns = (self.loss.metric_of_rows(logits, labels), self.loss.of_rows(logits, labels))
            tick(1)
            yield torch.stack([column.to(torch.float64).mean() for column in columns])[None].cpu()

    def before(self, meta: Meta, tasks: TaskSampler, count: int) -> float | None:
        """None: without a support set there is no classifier."""
        return None

    def columns(self, meta: Meta) -> dict[str, float]:
        """None of its own."""
        return {}

    def idle(self) -> dict[str, str]:
        """Whatever is about inner steps, films that are not there, and H where nothing is learned below the head."""
        taken = (*self.learner.uses, *EVERYWHERE)
        others = [f"method.{setting.name}" for setting in fields(MethodConfig) if setting.name not in taken]
        found = dict.fromkeys(others, "a method that takes it")
        if "film" in self.learner.uses and not self.learner.modules.films:
            names = (
                "method.film_penalty",
                "lite.h",
                "lite.stratified",
                "lite.control_variate",
                "lite.checkpoint",
            )
            found |= dict.fromkeys(names, "method.film = true")
        return found

    def conclude(self, meta: Meta, validation: TaskSampler) -> Conclusion:
        """All weights and frozen statistics."""
        return Conclusion({**meta.learned, **meta.fixed})
