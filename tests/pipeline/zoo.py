"""Small variants of the model zoo, one task for each, and K steps on it in plain torch, float64."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from edge_adapt.cloud.models import build_backbone
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

STEPS, SAMPLES, QUERIES, CLASSES = 3, 4, 3, 3
ZOO: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "conv4": ((1, 16, 16), {}),
    "resnet12": ((3, 32, 32), {"channels": (8, 16, 16, 32)}),
    "resnet18": ((3, 64, 64), {"width": 0.125}),
    "resnet20": ((3, 16, 16), {"width": 0.5}),
    "mobilenet-v2": ((3, 64, 64), {"width": 0.25}),
    "mobilenet-v3-small": ((3, 64, 64), {"width": 0.25}),
    "efficientnet-b0": ((3, 64, 64), {"width": 0.25}),
    "ds-cnn": ((1, 49, 10), {"width": 0.25}),
    "motion-cnn": ((6, 64), {"width": 0.25}),
    "mlp": ((12,), {"hidden": (16, 16)}),
    "vit": ((3, 16, 16), {"dim": 32}),
}
"""Sample shape and options; maps stay at least 2 x 2, where a GroupNorm of two channels still has a gradient."""


def module_of(name: str, **options: object) -> nn.Module:
    """A small variant, initialised with seed 0."""
    shape, own = ZOO[name]
    return build_backbone(name, shape, CLASSES, 0, {**own, **options})


def task_of(shape: tuple[int, ...]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Support samples of normal noise, their labels, query samples."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(SAMPLES + QUERIES, *shape)).astype(np.float32)
    return x[:SAMPLES], np.arange(SAMPLES) % CLASSES, x[SAMPLES:]


def step_sizes(module: nn.Module, size: float = 0.05) -> NDArray[np.float32]:
    """A table (K, layers), all entries different; every fifth layer is frozen, the last moves in every step."""
    layers = sum(1 for part in module.modules() if next(part.parameters(recurse=False), None) is not None)
    table = size * np.linspace(0.5, 1.5, STEPS * layers, dtype=np.float32).reshape(STEPS, layers)
    table[:, 1:-1:5] = 0
    table[0, 2:-1:7] = 0
    return table


def adapted_logits(
    module: nn.Module,
    alpha: Mapping[str, NDArray[np.float32]],
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    query: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Query logits after K steps of w <- w - alpha * mean_n(g_n), every sample by its own backward pass.

    Args:
        module: in any dtype; it is not changed.
        alpha: step sizes (K,) by layer.
        x: support samples (n, ...).
        y: labels (n,).
        query: (m, ...).
    """
    plain = copy.deepcopy(module).double().eval()
    params = dict(plain.named_parameters())
    images, labels = torch.from_numpy(x).double(), torch.from_numpy(y)
    for k in range(STEPS):
        own = [_gradients(plain, params, images[n : n + 1], labels[n : n + 1]) for n in range(len(x))]
        with torch.no_grad():
            for name, value in params.items():
                step_size = float(alpha[name.rpartition(".")[0]][k])
                value -= step_size * torch.stack([gradients[name] for gradients in own]).mean(0)
    with torch.no_grad():
        logits: Tensor = plain(torch.from_numpy(query).double())
    return logits.numpy()


def _gradients(module: nn.Module, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(F.cross_entropy(module(x), y), list(params.values()))
    return dict(zip(params, found, strict=True))
