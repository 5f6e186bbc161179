"""Modules with one activation each, as torch users write them, and the operations they become."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from edge_adapt.edge.program import Program
from edge_adapt.export.autodiff import differentiate
from edge_adapt.export.capture import capture
from torch import nn
from torch.nn import functional as F

SHAPE, CLASSES = (3, 4, 5), 3
FEATURES = 4 * 4 * 5


class Function(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Around(nn.Module):
    """A convolution, the activation, a linear head: the gradient must pass through the activation."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem = steep_stem()
        self.middle = middle
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        return self.head(torch.flatten(self.middle(self.stem(x)), 1))


class Branches(nn.Module):
    """Many activations side by side, each after a convolution of its own: captured once, checked one by one."""

    def __init__(self, middles: dict[str, nn.Module]) -> None:
        super().__init__()
        self.stems = nn.ModuleDict({name: steep_stem() for name in middles})
        self.middles = nn.ModuleDict(middles)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        values = [middle(self.stems[name](x)) for name, middle in self.middles.items()]
        return self.head(torch.flatten(sum(values[1:], values[0]), 1))


def steep_stem() -> nn.Conv2d:
    """So that every piece of every activation is reached."""
    stem = nn.Conv2d(SHAPE[0], 4, 1)
    stem.weight.data *= 5
    return stem


class Tokens(nn.Module):
    """The activation on (N, T, C)."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 6)
        self.middle = middle
        self.head = nn.Linear(4 * 6, CLASSES)

    def forward(self, x):
        return self.head(torch.flatten(self.middle(self.stem(x)), 1))


def gelu_by_tanh(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def fast_gelu(x):
    return 0.5 * x * (1 + torch.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x)))


ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], str, dict[str, Any]]] = {
    "relu": (nn.ReLU, "Relu", {}),
    "relu6": (nn.ReLU6, "Clip", {"min": 0.0, "max": 6.0}),
    "hardtanh": (lambda: nn.Hardtanh(-2, 0.3), "Clip", {"min": -2.0, "max": 0.3}),
    "clamp": (lambda: Function(lambda x: x.clamp(-1, 1)), "Clip", {"min": -1.0, "max": 1.0}),
    "clamp-below": (lambda: Function(lambda x: x.clamp(min=0.1)), "Clip", {"min": 0.1, "max": None}),
    "clamp-above": (lambda: Function(lambda x: x.clamp_max(0.1)), "Clip", {"min": None, "max": 0.1}),
    "leaky-relu": (lambda: nn.LeakyReLU(0.2), "LeakyRelu", {"alpha": 0.2}),
    "hard-sigmoid": (nn.Hardsigmoid, "HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "elu": (lambda: nn.ELU(0.7), "Elu", {"alpha": 0.7}),
    "sigmoid": (nn.Sigmoid, "Sigmoid", {}),
    "tanh": (nn.Tanh, "Tanh", {}),
    "silu": (nn.SiLU, "Silu", {}),
    "x-times-sigmoid": (lambda: Function(lambda x: torch.sigmoid(x) * x), "Silu", {}),
    "hard-swish": (nn.Hardswish, "HardSwish", {}),
    "x-times-hard-sigmoid": (lambda: Function(lambda x: x * F.hardsigmoid(x)), "HardSwish", {}),
    "hard-swish-by-hand": (lambda: Function(lambda x: x * F.relu6(x + 3) / 6), "HardSwish", {}),
    "hard-swish-by-hand-too": (lambda: Function(lambda x: F.relu6(x + 3.0).mul(1 / 6) * x), "HardSwish", {}),
    "hard-sigmoid-by-hand": (
        lambda: Function(lambda x: F.relu6(3 + x) / 6), "HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "gelu": (nn.GELU, "Gelu", {"approximate": "none"}),
    "gelu-by-hand": (
        lambda: Function(lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2)))), "Gelu",
        {"approximate": "none"}),
    "gelu-tanh": (lambda: nn.GELU("tanh"), "Gelu", {"approximate": "tanh"}),
    "gelu-tanh-by-hand": (lambda: Function(gelu_by_tanh), "Gelu", {"approximate": "tanh"}),
    "gelu-fast": (lambda: Function(fast_gelu), "Gelu", {"approximate": "tanh"}),
    "prelu": (lambda: nn.PReLU(4), "PRelu", {}),
    "prelu-shared": (nn.PReLU, "PRelu", {}),
    "softmax": (lambda: nn.Softmax(-1), "Softmax", {}),
}  # fmt: skip


@dataclass(frozen=True)
class Activation:
    """A float64 module, its program and one batch of data."""

    module: nn.Module
    program: Program
    images: np.ndarray
    labels: np.ndarray
    sample_weight: np.ndarray

    def values(self) -> dict[str, np.ndarray]:
        found = {name: value.detach().numpy() for name, value in self.module.named_parameters()}
        return {
            **found,
            "images": self.images,
            "labels": self.labels,
            "sample_weight": self.sample_weight,
            "class_mask": np.ones(CLASSES),
        }

    @property
    def gradients(self) -> list[str]:
        return [name for layer in self.program.layers for name in layer.grads]

    def truth(self) -> dict[str, np.ndarray]:
        """Loss, logits and gradients by torch."""
        logits = self.module(torch.from_numpy(self.images))
        each = F.cross_entropy(logits, torch.from_numpy(self.labels), reduction="none")
        loss = (each * torch.from_numpy(self.sample_weight)).sum()
        params = dict(self.module.named_parameters())
        grads = torch.autograd.grad(loss, list(params.values()))
        named = {f"grad::{name}": grad.numpy() for name, grad in zip(params, grads, strict=True)}
        outputs = {"loss": loss.detach().numpy(), self.program.outputs["logits"]: logits.detach().numpy()}
        return {**named, **outputs}


def activation(module: nn.Module, shape: tuple[int, ...], samples: int = 4) -> Activation:
    rng = np.random.default_rng(7)
    program = differentiate(capture(module, shape).program, {}, steps=2)
    images, labels = rng.normal(size=(samples, *shape)), rng.integers(0, CLASSES, samples)
    return Activation(module.double(), program, images, labels, rng.uniform(0.1, 0.5, samples))
