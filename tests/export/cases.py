"""Small modules, one per operation and geometry, and what it takes to run them as programs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from edge_adapt.edge.program import Program
from edge_adapt.export.adaptation import layer_attention
from edge_adapt.export.autodiff import differentiate
from edge_adapt.export.capture import capture
from edge_adapt.export.network import Network
from edge_adapt.export.source import AttentionSettings
from torch import nn

from . import cases_layers
from .truth import Modules, random_attention


class Residual(nn.Module):
    """A value with three readers: two convolutions and the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Conv2d(4, 4, 1, bias=False)
        self.head = nn.Linear(4 * 25, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(torch.flatten(self.left(x) + x + self.right(x), 1))


def stack(**parts: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(parts))


def conv_then(middle: nn.Module, features: int, **more: nn.Module) -> nn.Module:
    stem = nn.Conv2d(2, 6, 3, padding=1)
    return stack(stem=stem, middle=middle, **more, flatten=nn.Flatten(), head=nn.Linear(features, 3))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv-padded": (lambda: conv_then(nn.Conv2d(6, 4, 3, padding=1), 4 * 30), (2, 6, 5)),
    "conv-strided-leftover": (lambda: conv_then(nn.Conv2d(6, 4, 3, stride=(2, 3)), 4 * 3 * 2), (2, 8, 7)),
    "conv-dilated": (
        lambda: conv_then(nn.Conv2d(6, 4, (3, 2), dilation=(2, 3), padding=2), 4 * 7 * 8), (2, 7, 7)),
    "conv-strided-dilated": (
        lambda: conv_then(nn.Conv2d(6, 4, 3, 3, padding=2, dilation=2, groups=2), 4 * 3 * 3), (2, 8, 8)),
    "conv-groups": (lambda: conv_then(nn.Conv2d(6, 9, 3, padding=(0, 1), groups=3), 9 * 3 * 5), (2, 5, 5)),
    "conv-depthwise-times-2": (lambda: conv_then(nn.Conv2d(6, 12, 3, 2, 1, groups=6), 12 * 9), (2, 6, 5)),
    "conv-1x1-no-bias": (lambda: conv_then(nn.Conv2d(6, 4, 1, stride=2, bias=False), 4 * 9), (2, 6, 6)),
    "group-norm": (lambda: conv_then(nn.GroupNorm(3, 6), 6 * 20), (2, 5, 4)),
    "group-norm-of-vectors": (
        lambda: stack(flat=nn.Flatten(), fc=nn.Linear(18, 8), norm=nn.GroupNorm(2, 8), head=nn.Linear(8, 3)),
        (2, 3, 3)),
    "relu": (lambda: conv_then(nn.ReLU(), 6 * 20), (2, 5, 4)),
    "max-pool": (lambda: conv_then(nn.MaxPool2d(2), 6 * 6), (2, 7, 4)),
    "max-pool-overlapping": (lambda: conv_then(nn.MaxPool2d(3, 2, 1), 6 * 12), (2, 7, 5)),
    "max-pool-4x4": (lambda: conv_then(nn.MaxPool2d((4, 5), 1), 6 * 6), (2, 6, 6)),
    "fc-chain": (
        lambda: stack(flat=nn.Flatten(), a=nn.Linear(8, 6, bias=False), relu=nn.ReLU(), head=nn.Linear(6, 3)),
        (2, 2, 2)),
    "residual": (Residual, (2, 5, 5)),
    "conv-norm": (
        lambda: stack(a=nn.Conv2d(2, 6, 3), n=nn.GroupNorm(2, 6), flat=nn.Flatten(), head=nn.Linear(54, 4)),
        (2, 5, 5)),
    **cases_layers.CASES,
}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """A float64 module, its program and one batch of data."""

    module: nn.Module
    program: Program
    constants: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray
    attention: Modules
    settings: AttentionSettings

    def values(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Everything the program reads: parameters, attention parameters, inputs (defaults unless given)."""
        count = len(self.images)
        learned = {name: value.detach().numpy() for name, value in self.module.named_parameters()}
        found = {**self.constants, **learned}
        for layer, sides in self.attention.items():
            for side, module in sides.items():
                for part in ("w1", "b1", "w2", "b2"):
                    found[f"attention::{layer}::{side}::{part}"] = getattr(module, part)
        defaults = {
            "images": self.images,
            "labels": self.labels,
            "sample_weight": np.full(count, 1 / count),
            "class_mask": np.ones(self.program.tensors["class_mask"].shape),
        }
        return {**found, **defaults, **inputs}

    @property
    def gradients(self) -> list[str]:
        return [name for layer in self.program.layers for name in layer.grads]


@cache
def captured(module: nn.Module, shape: tuple[int, ...]) -> Network:
    """The forward program; weights are not part of it, so a module is captured once."""
    return capture(module, shape)


def example(
    module: nn.Module, shape: tuple[int, ...], *, attended: bool, settings: AttentionSettings | None = None,
    samples: int = 4, hidden: int | None = None, seed: int = 0,
) -> Example:  # fmt: skip
    module = module.double()
    settings = settings or AttentionSettings()
    attention = random_attention(module, seed + 1, hidden) if attended else {}
    rng = np.random.default_rng(seed)
    network = captured(module, shape)
    program = differentiate(network.program, layer_attention(attention, settings), steps=2)
    constants = {name: value for name, value in network.values.items() if name not in network.origins}
    classes = int(program.tensors[program.outputs["logits"]].shape[1])
    labels = rng.integers(0, classes, samples)
    images = rng.normal(size=(samples, *shape))
    return Example(module, program, constants, images, labels, attention, settings)


@cache
def built(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return CASES[name][0]()


@cache
def case(name: str, attended: bool) -> Example:
    return example(built(name), CASES[name][1], attended=attended)
