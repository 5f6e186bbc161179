"""Accuracy, or mean squared error, on many tasks at the device's semantics, with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..inner.device import adapt, outputs_of, query_logits
from ..inner.network import Network
from ..losses import CROSS_ENTROPY, Loss
from ..outer import Batch, Meta, MethodConfig

Z95 = 1.959964


@dataclass(frozen=True)
class Score:
    """Mean query metric over tasks.

    Attributes:
        value: after adaptation: accuracy in [0, 1], or mean squared error.
        ci95: half width of the 95 % interval, 1.96 standard errors over tasks.
        loss: mean query loss after adaptation.
        tasks: how many.
        before: the metric without adaptation, see `score_before`; None where it was not measured.
        of: the loss, which says what the metric is.
    """

    value: float
    ci95: float
    loss: float
    tasks: int
    before: float | None = None
    of: Loss = CROSS_ENTROPY

    @property
    def accuracy(self) -> float:
        """The value, of a classification."""
        return self._named("accuracy")

    @property
    def mse(self) -> float:
        """The value, of a regression."""
        return self._named("mse")

    def to_json(self) -> dict[str, Any]:
        """Plain values, the metric under its own name: accuracy or mse."""
        return {
            self.of.metric: self.value,
            "ci95": self.ci95,
            "loss": self.loss,
            "tasks": self.tasks,
            f"{self.of.metric}_before": self.before,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], of: Loss) -> Score:
        """What `to_json` made of it."""
        metric, before = values[of.metric], values[f"{of.metric}_before"]
        return cls(metric, values["ci95"], values["loss"], values["tasks"], before, of)

    @property
    def text(self) -> str:
        """`98.10% ± 0.20% on 600 test tasks`, or `mean squared error 0.12 ± 0.01 on 600 test tasks`."""
        name = "" if self.of.percent else f"{self.of.words} "
        return f"{name}{self.of.text(self.value)} ± {self.of.text(self.ci95)} on {self.tasks} test tasks"

    @property
    def before_text(self) -> str:
        """`20.00% before adaptation`."""
        return "" if self.before is None else f"{self.of.text(self.before)} before adaptation"

    def _named(self, metric: str) -> float:
        if metric != self.of.metric:
            raise AttributeError(f"a score of {self.of.name} has no {metric}, it has {self.of.metric}")
        return self.value


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

    def rows() -> Iterator[Tensor]:
        for tasks in batches:
            yield _score(network, config, meta, tasks, batch)
            tick(len(tasks))

    return score_of(rows(), network.loss)


def score_of(rows: Iterable[Tensor], loss: Loss) -> Score:
    """The score of tasks, from the query metric and loss of each after adaptation, float64 (T, 2) a piece."""
    values, losses = torch.cat(list(rows)).T
    return Score(float(values.mean()), interval(values), float(losses.mean()), len(values), of=loss)


@torch.no_grad()
def score_before(network: Network, meta: Meta, batches: Iterable[Batch]) -> float:
    """Mean query metric of the meta-learned weights without any adaptation (an accuracy of about 1/ways)."""
    found = []
    for batch in batches:
        outputs = outputs_of(network, network.per_task(meta.learned, (), len(batch)), batch.query_x)
        found.append(network.loss.metric_of_rows(outputs.flatten(0, 1), batch.query_y.flatten(0, 1)))
    return float(torch.cat(found).to(torch.float64).mean())


def interval(values: Tensor) -> float:
    """Half width of the 95 % interval of the mean of independent values, float (n,), n >= 2."""
    return Z95 * float(values.std(correction=1)) / math.sqrt(len(values))


def _score(network: Network, config: MethodConfig, meta: Meta, tasks: Batch, batch: int | None) -> Tensor:
    """Query metric and loss of each task after adaptation, float64 (T, 2)."""
    adapted = adapt(network, config, meta, tasks.support_x, tasks.support_y, batch=batch)
    outputs, answers = (
        query_logits(network, adapted, tasks.query_x).flatten(0, 1),
        tasks.query_y.flatten(0, 1),
    )
    loss = network.loss
    columns = (loss.metric_of_rows(outputs, answers), loss.of_rows(outputs, answers))
    return torch.stack([column.to(torch.float64).reshape(len(tasks), -1).mean(1) for column in columns], 1)
