"""What a meta-learning method is: the protocol that the training loop drives, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ..inner.base import Batch, Meta, MethodConfig
from ..inner.network import Network

__all__ = ["Batch", "Meta", "MetaGradient", "Method", "MethodConfig"]


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

    def __init__(self, network: Network, config: MethodConfig) -> None: ...

    @property
    def config(self) -> MethodConfig:
        """The configuration in force (what a method fixes is already replaced, e.g. no attention in MAML)."""

    def init(self, seed: int) -> Meta:
        """Fresh meta-parameters; the same seed gives the same numbers."""

    def meta_gradient(self, meta: Meta, batch: Batch, progress: float) -> MetaGradient:
        """Mean outer gradient over the batch's tasks; progress in [0, 1] is the share of training done."""

    def after_step(self, meta: Meta, result: MetaGradient, progress: float) -> Meta:
        """What follows the optimizer step: projections such as alpha >= 0, freezing of whole layers."""

    def param_groups(self, meta: Meta, lr: float) -> list[dict[str, Any]]:
        """Adam groups: [{"names": [...], "params": [...], "lr": float}, ...] covering meta.learned once."""
