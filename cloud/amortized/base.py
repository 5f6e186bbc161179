"""What an amortized learner is, a method that adapts by forward passes only: the protocol that the loop drives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from ..inner.base import Meta, MethodConfig
from ..lite import LiteConfig
from ..outer.base import MetaGradient
from ..settings.tables import literal
from ..tasks.task import Task
from .modules import Modules

EVERYWHERE = ("gradient_clamp",)
"""Settings that every learner takes."""


class Learner(Protocol):
    """One amortized learner, bound to a backbone and its settings (one file per learner in this folder).

    The driver's loop is that of the gradient-based methods (`outer.base.Method`), on tasks that are not stacked.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str]
    uses: ClassVar[frozenset[str]]
    """Which of film, covariance and film_penalty it takes; all other settings must keep their defaults."""
    modules: Modules
    """Structure, and the backbone's weights as they were given."""

    def __init__(
        self, module: nn.Module, sample_shape: tuple[int, ...], method: MethodConfig, lite: LiteConfig
    ) -> None: ...

    @property
    def needs_weights(self) -> str:
        """Why the extractor's weights must come from an earlier training; empty where they need not."""

    def init(self, seed: int) -> Meta:
        """Fresh meta-parameters by name in `modules`; the same seed gives the same numbers."""

    def meta_gradient(self, meta: Meta, tasks: Sequence[Task], progress: float) -> MetaGradient:
        """Mean over tasks of the gradient of the mean loss over a task's queries."""

    def after_step(self, meta: Meta, result: MetaGradient, progress: float) -> Meta:
        """What follows the optimizer step."""

    def param_groups(self, meta: Meta, lr: float) -> list[dict[str, Any]]:
        """Adam groups: [{"names": [...], "params": [...], "lr": float}, ...] covering meta.learned once."""

    def logits(self, meta: Meta, task: Task) -> Tensor:
        """Logits of all queries, (M, ways), after the whole support set was seen; without graph."""


def refuse_unused(learner: type[Learner], method: MethodConfig) -> None:
    """Check that settings which the learner does not take are at their defaults.

    Raises:
        ValueError: names the first that is not.
    """
    for setting in fields(MethodConfig):
        value = getattr(method, setting.name)
        if setting.name not in (*learner.uses, *EVERYWHERE) and value != setting.default:
            raise ValueError(
                f"{setting.name}: {literal(value)} would have no effect, {learner.name} does not use it; "
                f"leave it at {literal(setting.default)}"
            )
