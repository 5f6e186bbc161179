"""MAML++: every layer adapts, with a learned step size per layer and step."""

from __future__ import annotations

from typing import ClassVar

from ..inner.base import Meta
from .maml import UNROLLED, Maml


class MamlPlusPlus(Maml):
    """MAML with alpha learned; multi-step loss and first-order phase are settings (off by default)."""

    name: ClassVar[str] = "maml++"
    paper: ClassVar[str] = "Antoniou et al., ICLR 2019"
    summary: ClassVar[str] = (
        "adapts all layers; learns the initial weights and a step size per layer and step"
    )
    uses: ClassVar[frozenset[str]] = UNROLLED | {"alpha_rate"}

    def init(self, seed: int) -> Meta:
        """The backbone's weights and constant learned step sizes (K, L)."""
        meta = super().init(seed)
        return Meta({**meta.learned, "alpha": meta.alpha}, {})
