"""Ordinary supervised training of a backbone, for learners that need features to start from."""

from __future__ import annotations

from .settings import Pretraining
from .supervised import Pretrained, pretrain

__all__ = ["Pretrained", "Pretraining", "pretrain"]
