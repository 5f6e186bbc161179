"""What a run trains, as the outer loop sees it: the same for methods with inner steps and for those without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ...edge.inputs import Spec
from ..config import RunConfig
from ..losses import Loss
from ..outer import Meta, MetaGradient
from ..tasks import TaskSampler
from .score import Score

Tick = Callable[[int], object]


@dataclass(frozen=True)
class Conclusion:
    """What is left behind of kept meta-parameters, beside their score.

    Attributes:
        tensors: the content of model.safetensors.
        entries: of result.json, own ones.
        tables: JSON files by name.
        pictures: what draws a PNG file, by name.
        numbers: what was measured, by what it is called; none may be infinite or NaN.
    """

    tensors: Mapping[str, Tensor]
    entries: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    numbers: Mapping[str, list[float]] = field(default_factory=dict)


class Parts(Protocol):
    """A method or learner with its network, bound to a configuration."""

    @property
    def config(self) -> RunConfig:
        """The settings in force (a method may fix some of them)."""

    @property
    def spec(self) -> Spec:
        """Of a sample."""

    @property
    def loss(self) -> Loss:
        """What the tasks are, classifications or regressions."""

    def init(self) -> Meta:
        """Where training starts, initial weights in place; raises ConfigError where they do not fit."""

    def meta_gradient(self, meta: Meta, tasks: TaskSampler, first: int, progress: float) -> MetaGradient:
        """Mean outer gradient of one step's tasks, those from number `first` on."""

    def after_step(self, meta: Meta, result: MetaGradient, progress: float) -> Meta:
        """See `outer.base.Method`."""

    def param_groups(self, meta: Meta, lr: float) -> list[dict[str, Any]]:
        """See `outer.base.Method`."""

    def eligible(self, meta: Meta, progress: float) -> bool:
        """Whether these meta-parameters may be kept as a result."""

    def measure(
        self, meta: Meta, tasks: TaskSampler, count: int, tick: Tick = ..., batch: int | None = None
    ) -> Score:
        """Adapt to tasks 0 .. count-1 as the device does, and score their queries.

        Args:
            meta: where adaptation starts.
            tasks: their source.
            count: how many.
            tick: is told how many more are done.
            batch: support samples that are run at once; None: see `evaluate`.
        """

    def before(self, meta: Meta, tasks: TaskSampler, count: int) -> float | None:
        """The metric without adaptation; None where nothing can be told without it."""

    def columns(self, meta: Meta) -> dict[str, float]:
        """Own columns of metrics.csv."""

    def idle(self) -> dict[str, str]:
        """Settings of [method] and [lite], "method.mu", that are without effect at present, with what they need."""

    def conclude(self, meta: Meta, validation: TaskSampler) -> Conclusion:
        """What is left behind of kept meta-parameters."""
