"""ANIL: only the output layer adapts."""

from __future__ import annotations

from typing import ClassVar

import torch

from ..inner.base import Meta
from .maml import Maml


class Anil(Maml):
    """MAML whose step sizes are zero everywhere but in the output layer."""

    name: ClassVar[str] = "anil"
    paper: ClassVar[str] = "Raghu et al., ICLR 2020"
    summary: ClassVar[str] = "adapts the output layer only; learns the initial weights"

    def init(self, seed: int) -> Meta:
        """The backbone's weights and step sizes (K, L) that are zero below the output layer."""
        meta = super().init(seed)
        head = torch.tensor([float(layer.is_output) for layer in self.network.layers])
        return Meta(meta.learned, {"alpha": meta.alpha * head})
