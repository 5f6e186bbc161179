"""FOMAML++: FOMAML with the multi-step loss of MAML++."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from ..inner.base import MethodConfig
from ..inner.network import Network
from ..lite import LiteConfig
from .fomaml import Fomaml

MULTI_STEP_UNTIL = 0.1
"""Share of training with the multi-step loss where none is set (Omniglot: 10 of 100 epochs)."""


class FomamlPlusPlus(Fomaml):
    """dL/dw = mean over tasks of sum_k v_k * grad loss_Q(w_k), v annealed to the last step alone."""

    name: ClassVar[str] = "fomaml++"
    paper: ClassVar[str] = "Antoniou et al., ICLR 2019; baseline of Shin et al., ICML 2021"
    summary: ClassVar[str] = "FOMAML with query gradients at the weights after every inner step"
    uses: ClassVar[frozenset[str]] = frozenset({"multi_step_until"})

    def __init__(self, network: Network, config: MethodConfig, lite: LiteConfig = LiteConfig()) -> None:  # noqa: B008
        super().__init__(network, config, lite)
        self.config = replace(self.config, multi_step_until=config.multi_step_until or MULTI_STEP_UNTIL)
