"""BOIL: everything but the output layer adapts."""

from __future__ import annotations

from typing import ClassVar

import torch

from ..inner.base import Meta
from .maml import Maml


class Boil(Maml):
    """MAML whose step sizes are zero in the output layer."""

    name: ClassVar[str] = "boil"
    paper: ClassVar[str] = "Oh et al., ICLR 2021"
    summary: ClassVar[str] = "adapts all layers but the output layer; learns the initial weights"

    def init(self, seed: int) -> Meta:
        """The backbone's weights and step sizes (K, L) that are zero in the output layer."""
        meta = super().init(seed)
        body = torch.tensor([float(not layer.is_output) for layer in self.network.layers])
        return Meta(meta.learned, {"alpha": meta.alpha * body})
