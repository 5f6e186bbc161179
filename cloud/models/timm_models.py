"""Backbones of the package timm (PyTorch Image Models), "timm:NAME"; imported when one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .parts import Shape

PREFIX = "timm:"


def is_timm(name: str) -> bool:
    """Whether a backbone's name is one of timm's."""
    return name.startswith(PREFIX)


def build_timm(
    name: str, sample_shape: Shape, outputs: int, seed: int, options: Mapping[str, object]
) -> nn.Module:
    """A freshly initialised model of timm; the same seed gives the same weights. Nothing is downloaded.

    Args:
        name: "timm:NAME", NAME as timm has it.
        sample_shape: (C, H, W).
        outputs: of the classifier.
        seed: of the initial weights.
        options: what `timm.create_model` takes beside these, by name.

    Raises:
        ValueError: timm is not installed, has no such model, or cannot make it with these options.
    """
    try:
        timm: Any = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise ValueError("it needs the package timm: pip install timm") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = timm.create_model(
                name.removeprefix(PREFIX),
                pretrained=False,
                num_classes=outputs,
                in_chans=sample_shape[0],
                **options,
            )
        except Exception as error:
            raise ValueError(f"timm cannot make it: {' '.join(str(error).split())}") from None
    if not isinstance(module, nn.Module):
        raise ValueError(f"timm made a {type(module).__name__}, expected a torch module")
    return module
