"""Ordinary supervised training of a backbone, for learners that need features to start from."""

from __future__ import annotations

from .pretrain import Pretrained, pretrain
from .settings import Pretraining

__all__ = ["Pretrained", "Pretraining", "pretrain"]
