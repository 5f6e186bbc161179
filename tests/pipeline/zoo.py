"""Small variants of the model zoo, one task for each, and K steps on it in plain torch, float64."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.models.parts import InvertedResidual
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

STEPS, SAMPLES, QUERIES, CLASSES = 3, 4, 3, 3
BRANCH_SCALE = 0.1


class Small(NamedTuple):
    """A small variant: shape of a sample, the backbone's options, the size of a step.

    Steps are small where larger ones bring a value so close to a ReLU's kink that weights changed by one part in
    5,000,000 move the logits, in float64 too, by more than the tolerance.
    """

    shape: tuple[int, ...]
    options: dict[str, Any]
    step_size: float = 0.01


ZOO: dict[str, Small] = {
    "conv4": Small((1, 16, 16), {}),
    "resnet12": Small((3, 16, 16), {"channels": (8, 16, 16, 32)}, step_size=0.001),
    "resnet18": Small((3, 32, 32), {"width": 0.125}),
    "resnet20": Small((3, 16, 16), {"width": 0.5}),
    "mobilenet-v2": Small((3, 32, 32), {"width": 0.25}, step_size=0.001),
    "mobilenet-v3-small": Small((3, 32, 32), {"width": 0.25}),
    "efficientnet-b0": Small((3, 32, 32), {"width": 0.25}),
    "ds-cnn": Small((1, 49, 10), {"width": 0.25}),
    "motion-cnn": Small((6, 64), {"width": 0.25}),
    "mlp": Small((12,), {"hidden": (16, 16)}),
    "vit": Small((3, 16, 16), {"dim": 32}),
}


class Task(NamedTuple):
    """Support samples (n, ...) of normal noise, their labels (n,), query samples (m, ...)."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    query: NDArray[np.float32]


def module_of(name: str, **options: object) -> nn.Module:
    """A small variant, initialised with seed 0; norms are no longer ones and zeros, statistics neither.

    Branches that are added to a shortcut start small, as in training. With full ones MobileNetV2 amplifies
    rounding: a change of one bias by 1e-7 moves the logits after three steps by a fifth, in float64 too.
    """
    small, generator = ZOO[name], torch.Generator().manual_seed(1)
    module = build_backbone(name, small.shape, CLASSES, 0, {**small.options, **options}).eval()
    for part in module.modules():
        if isinstance(part, (nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(part.weight, 1.0, 0.2, generator)
            nn.init.normal_(part.bias, 0.0, 0.2, generator)
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.normal_(part.running_mean, 0.0, 0.2, generator)
            nn.init.uniform_(part.running_var, 0.5, 1.5, generator)
    for part in module.modules():
        if isinstance(part, InvertedResidual) and part.adds:
            nn.init.normal_(part.project.norm.weight, BRANCH_SCALE, 0.2 * BRANCH_SCALE, generator)
    return module


def task_of(shape: tuple[int, ...]) -> Task:
    """One task; labels 0, 1, 2, 0."""
    x = np.random.default_rng(0).normal(size=(SAMPLES + QUERIES, *shape)).astype(np.float32)
    return Task(x[:SAMPLES], np.arange(SAMPLES) % CLASSES, x[SAMPLES:])


def step_sizes(name: str, module: nn.Module) -> NDArray[np.float32]:
    """A table (K, layers), all entries different; every fifth layer is frozen, the last moves in every step."""
    layers = sum(1 for part in module.modules() if next(part.parameters(recurse=False), None) is not None)
    table = np.linspace(0.5, 1.5, STEPS * layers, dtype=np.float32).reshape(STEPS, layers)
    table[:, 1:-1:5] = 0
    table[0, 2:-1:7] = 0
    return table * np.float32(ZOO[name].step_size)


def adapted_logits(
    module: nn.Module, alpha: Mapping[str, NDArray[np.float32]], task: Task
) -> NDArray[np.float64]:
    """Query logits after K steps of w <- w - alpha * mean_n(g_n) in float64, every sample by its own backward pass.

    Args:
        module: in any dtype; it is not changed.
        alpha: step sizes (K,) by layer.
        task: what it adapts to.
    """
    plain = copy.deepcopy(module).double()
    params = dict(plain.named_parameters())
    images, labels = torch.from_numpy(task.x).double(), torch.from_numpy(task.y)
    for k in range(STEPS):
        own = [_gradients(plain, params, images[n : n + 1], labels[n : n + 1]) for n in range(SAMPLES)]
        with torch.no_grad():
            for name, value in params.items():
                step_size = float(alpha[name.rpartition(".")[0]][k])
                value -= step_size * torch.stack([gradients[name] for gradients in own]).mean(0)
    logits: Tensor = plain(torch.from_numpy(task.query).double())
    return logits.detach().numpy()


def _gradients(module: nn.Module, params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(F.cross_entropy(module(x), y), list(params.values()))
    return dict(zip(params, found, strict=True))
