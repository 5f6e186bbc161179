"""What a meta-learning method is: the protocol that the training loop drives, and its result."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ..inner.base import Batch, Meta, MethodConfig, Tasks
from ..inner.network import Network
from ..lite import LiteConfig
from ..settings.tables import literal

__all__ = [
    "LITE",
    "SPECIAL",
    "Batch",
    "ChunkSums",
    "Meta",
    "MetaGradient",
    "Method",
    "MethodConfig",
    "Tasks",
    "open_layers",
    "refuse_unused",
]

SPECIAL = (
    "first_order", "first_order_until", "multi_step_until", "checkpoint_steps", "compile_steps", "penalty",
    "alpha_rate", "prox", "mu", "task_layers", "cg_steps", "cg_damping", "channel_alpha", "attention_masks", "film",
    "covariance", "film_penalty",
)  # fmt: skip
"""Settings that only some methods take."""
LITE = "lite"
"""In a method's `uses`: it takes section [lite]."""


@dataclass(frozen=True)
class ChunkSums:
    """Sums over the tasks of one chunk: gradients by learned name, metrics (0-dimensional), benefit (L,)."""

    grads: dict[str, Tensor]
    metrics: dict[str, Tensor]
    benefit: Tensor


@dataclass(frozen=True)
class MetaGradient:
    """One outer step's result: gradients by learned name, metrics for the log, per-layer benefit (L,)."""

    grads: dict[str, Tensor]
    metrics: dict[str, float]
    benefit: Tensor


class Method(Protocol):
    """One meta-learning method, bound to a network and a configuration (one file per method in this folder).

    The driver's loop is: meta = init(seed); then per step: result = meta_gradient(...), Adam on
    param_groups(meta, lr) with result.grads, meta = after_step(meta, result, progress).
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str]
    uses: ClassVar[frozenset[str]]
    """Which of `SPECIAL` settings it takes, and `LITE`; all others must keep their defaults."""

    def __init__(self, network: Network, config: MethodConfig, lite: LiteConfig = ...) -> None: ...

    @property
    def config(self) -> MethodConfig:
        """The configuration in force (what a method fixes is already replaced, e.g. no attention in MAML)."""

    def init(self, seed: int) -> Meta:
        """Fresh meta-parameters; the same seed gives the same numbers."""

    def meta_gradient(self, meta: Meta, tasks: Tasks, progress: float) -> MetaGradient:
        """Mean outer gradient over the batch's tasks; progress in [0, 1] is the share of training done."""

    def after_step(self, meta: Meta, result: MetaGradient, progress: float) -> Meta:
        """What follows the optimizer step: projections such as alpha >= 0, freezing of whole layers."""

    def param_groups(self, meta: Meta, lr: float) -> list[dict[str, Any]]:
        """Adam groups: [{"names": [...], "params": [...], "lr": float}, ...] covering meta.learned once."""


def open_layers(meta: Meta) -> tuple[int, ...]:
    """Layers that may be updated: not frozen for good, and with a learned or non-zero step size."""
    allowed = meta.fixed.get("open", torch.ones(meta.alpha.shape[1], device=meta.alpha.device))
    if "alpha" not in meta.learned:
        allowed = allowed * meta.updated
    return tuple(torch.nonzero(allowed).flatten().tolist())


def refuse_unused(method: type[Method], config: MethodConfig, lite: LiteConfig = LiteConfig()) -> None:  # noqa: B008
    """Check that settings which the method does not take are at their defaults.

    Raises:
        ValueError: names the first that is not.
    """
    for setting in fields(MethodConfig):
        value = getattr(config, setting.name)
        if setting.name in SPECIAL and setting.name not in method.uses and value != setting.default:
            raise ValueError(
                f"{setting.name}: {literal(value)} would have no effect, {method.name} does not use it; "
                f"leave it at {literal(setting.default)}"
            )
    for setting in fields(LiteConfig) if LITE not in method.uses else ():
        value = getattr(lite, setting.name)
        if setting.name != "chunk" and value != setting.default:
            raise ValueError(
                f"lite.{setting.name}: {literal(value)} would have no effect, {method.name} does not differentiate "
                f"through its inner steps; leave it at {literal(setting.default)}"
            )
