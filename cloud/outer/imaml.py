"""iMAML: every layer adapts, held near the initial weights; the outer gradient is implicit."""

from __future__ import annotations

from typing import ClassVar

from ..inner.base import Meta, Tasks
from .base import MetaGradient
from .gradient import mean_gradient
from .implicit import LowerLevel, implicit_sums
from .maml import Maml


class Imaml(Maml):
    """dL/dw = (I + H/lambda)^-1 grad loss_Q at the minimum of loss_S(w') + lambda/2 |w' - w|^2.

    lambda is `prox`; `cg_steps` and `cg_damping` belong to the solver. The device takes the same K steps
    without the proximal term.
    """

    name: ClassVar[str] = "imaml"
    paper: ClassVar[str] = "Rajeswaran et al., NeurIPS 2019"
    summary: ClassVar[str] = (
        "adapts all layers near the initial weights; implicit gradient by conjugate gradients"
    )
    uses: ClassVar[frozenset[str]] = frozenset({"prox", "cg_steps", "cg_damping"})

    def meta_gradient(self, meta: Meta, tasks: Tasks, progress: float) -> MetaGradient:
        """Mean over tasks of the implicit gradient."""
        every = tuple(range(len(self.network.layers)))
        lower = LowerLevel(every, self.config.prox, self.config.cg_damping)
        return mean_gradient(
            self.config,
            meta,
            tasks,
            lambda part: implicit_sums(self.network, self.config, meta, part, lower),
        )
