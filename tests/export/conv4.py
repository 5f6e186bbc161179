"""4Conv with attention as a source, and K steps of adaptation in plain torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from edge_adapt.edge.inputs import InputSpec
from edge_adapt.export.source import AttentionSettings, Source
from torch import nn

from .cases import stack
from .truth import random_attention, truth

LAYERS = ("conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "conv4", "norm4", "fc")
WAYS, STEPS = 5, 3
DENSE = np.tile(np.linspace(0.02, 0.1, len(LAYERS)), (STEPS, 1)).astype(np.float32)
SPARSE = DENSE * np.array(
    [[0, 0, 0, 1, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 0, 1], [0, 0, 0, 1, 0, 0, 0, 1, 1]], np.float32
)
PLANS = {"dense": DENSE, "sparse": SPARSE}


def conv4(channels: int, size: int) -> nn.Module:
    """4 x [3x3 conv 32, GroupNorm 8, ReLU, 2x2 max-pool], fc; always the same weights."""
    parts: dict[str, nn.Module] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for index in range(1, 5):
            parts[f"conv{index}"] = nn.Conv2d(channels if index == 1 else 32, 32, 3, padding=1)
            parts[f"norm{index}"] = nn.GroupNorm(8, 32)
            parts[f"relu{index}"] = nn.ReLU()
            parts[f"pool{index}"] = nn.MaxPool2d(2)
        return stack(**parts, flatten=nn.Flatten(), fc=nn.Linear(32 * (size // 16) ** 2, WAYS))


def conv4_source(size: int = 28, alpha: np.ndarray = DENSE, *, attended: bool = True) -> Source:
    channels = 1 if size == 28 else 3
    module = conv4(channels, size)
    spec = InputSpec(channels, size, size, (0.5,) * channels, (0.25,) * channels)
    attention = random_attention(module, 2, scale=0.25) if attended else {}
    return Source("conv4-test", module, spec, LAYERS, alpha, attention, AttentionSettings(0.3, 0.0))


def blobs(size: int, channels: int, count: int, seed: int) -> np.ndarray:
    """Smooth random images, float64 (count, channels, size, size)."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(count, channels, 7, 7)))
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=True).numpy()


@dataclass(frozen=True)
class Adaptation:
    """What K steps in torch, float64, leave behind; `keeps` has one mapping per step."""

    module: nn.Module
    losses: list[float]
    keeps: list[dict[str, np.ndarray]]


def adapt_in_torch(source: Source, images: np.ndarray, labels: np.ndarray) -> Adaptation:
    """w <- w - alpha * mean_n(gamma_n * g_n), K times."""
    module = conv4(images.shape[1], images.shape[2]).double()
    params = dict(module.named_parameters())
    losses, keeps = [], []
    for row in source.alpha:
        found = truth(module, images, labels, attention=source.attention, settings=source.settings)
        for name, size in zip(source.layer_names, row, strict=True):
            for part in ("weight", "bias"):
                gradient = torch.from_numpy(found.grads[f"grad::{name}.{part}"])
                params[f"{name}.{part}"].data -= float(size) * gradient
        losses.append(found.loss)
        keeps.append(found.keeps)
    return Adaptation(module, losses, keeps)
