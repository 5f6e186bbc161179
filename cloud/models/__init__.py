"""Backbones by name; each entry builds a plain torch module for (in_channels, size, ways)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .conv4 import Conv4

BACKBONES: dict[str, Callable[[int, int, int], nn.Module]] = {"conv4": Conv4}

__all__ = ["BACKBONES", "Conv4", "build_backbone"]


def build_backbone(name: str, in_channels: int, size: int, ways: int, seed: int) -> nn.Module:
    """A freshly initialised backbone; the same seed gives the same weights, torch's global state is kept.

    Raises:
        ValueError: no backbone has that name.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {name!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BACKBONES[name](in_channels, size, ways)
