"""Modules that use parameters of their own: position embeddings, scales, class tokens, x w + b."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from edge_adapt.edge.program import Program
from edge_adapt.export.autodiff import differentiate
from edge_adapt.export.capture import capture
from edge_adapt.export.network import Network
from torch import nn
from torch.nn import functional as F

TOKENS, IMAGE, VECTOR, CLASSES = (5, 4), (3, 4, 5), (7,), 3


class Own(nn.Module):
    """A function of x and of parameters of these shapes."""

    def __init__(self, function: Callable[..., torch.Tensor], **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))

    def forward(self, x):
        return self.function(x, *self.parameters())


class Between(nn.Module):
    """A stem that learns, the module, a linear head: gradients must pass through the module."""

    def __init__(self, middle: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1) if len(shape) == 3 else nn.Linear(shape[-1], shape[-1])
        self.middle = middle
        features = middle(torch.zeros(1, *shape)).numel()
        self.head = nn.Linear(features, CLASSES)

    def forward(self, x):
        return self.head(torch.flatten(self.middle(self.stem(x)), 1))


def _centred(x):
    return (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 2.0, 1.5]).view(3, 1, 1)


def _class_token(x, token):
    return torch.cat([token.expand(x.shape[0], -1, -1), x], 1)


def _channels(x, scale, bias):
    return x * scale.view(1, -1, 1, 1) + bias[None, :, None, None]


PARAMETERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[tuple[str, dict[str, Any]]]]] = {
    "position-embedding": (
        lambda: Own(lambda x, p: x + p, p=(1, 5, 4)), TOKENS, [("Affine", {"axis": -1})]),
    "position-embedding-first": (
        lambda: Own(lambda x, p: p[:, :5] + x, p=(1, 5, 4)), TOKENS, [("Affine", {"axis": -1})]),
    "layer-scale": (lambda: Own(lambda x, g: x * g, g=(4,)), TOKENS, [("Affine", {"axis": -1})]),
    "scale-of-channels": (lambda: Own(lambda x, g: g * x, g=(3, 1, 1)), IMAGE, [("Affine", {"axis": 1})]),
    "scale-and-shift": (lambda: Own(_channels, scale=(3,), bias=(3,)), IMAGE, [("Affine", {"axis": 1})]),
    "scale-and-shift-last": (
        lambda: Own(lambda x, g, b: b + x * g, g=(4, 5), b=(4, 5)), IMAGE, [("Affine", {"axis": -1})]),
    "scale-then-other-shift": (
        lambda: Own(lambda x, g, b: x * g + b, g=(3, 1, 1), b=(4, 5)), IMAGE,
        [("Affine", {"axis": 1}), ("Affine", {"axis": -1})]),
    "one-scale": (lambda: Own(lambda x, g: x * g, g=(1,)), IMAGE, [("Affine", {"axis": -1})]),
    "one-shift": (lambda: Own(lambda x, g: x + g, g=()), TOKENS, [("Affine", {"axis": -1})]),
    "reversed-difference": (lambda: Own(lambda x, p: p - x, p=(3, 1, 1)), IMAGE, [("Affine", {"axis": 1})]),
    "normalised-by-constants": (
        lambda: Own(_centred), IMAGE, [("Affine", {"axis": 1}), ("Affine", {"axis": 1})]),
    "matrix": (lambda: Own(lambda x, w, b: x @ w + b, w=(4, 6), b=(6,)), TOKENS, [("Fc", {})]),
    "matrix-transposed": (lambda: Own(lambda x, w: x @ w.t(), w=(6, 7)), VECTOR, [("Fc", {})]),
    "linear-then-positions": (
        lambda: Own(lambda x, w, p: x @ w + p, w=(4, 6), p=(1, 5, 6)), TOKENS,
        [("Fc", {}), ("Affine", {"axis": -1})]),
    "class-token": (lambda: Own(_class_token, token=(1, 1, 4)), TOKENS, [("Expand", {}), ("Concat", {"axis": 1})]),
    "class-token-repeated": (
        lambda: Own(lambda x, t: torch.cat([x, t.repeat(x.shape[0], 1, 1)], 1), t=(1, 2, 4)), TOKENS,
        [("Expand", {}), ("Concat", {"axis": 1})]),
    "token-for-all": (
        lambda: Own(lambda x, t: t.expand_as(x) + x, t=(1, 1, 4)), TOKENS, [("Expand", {}), ("Add", {})]),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A float64 module, its program and one batch of data."""

    module: nn.Module
    network: Network
    program: Program
    images: np.ndarray
    labels: np.ndarray
    sample_weight: np.ndarray

    def values(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Everything the program reads; parameters of the module in float64 and in the program's layout."""
        found: dict[str, np.ndarray] = {}
        for name, value in self.network.values.items():
            source = self._source(name)
            found[name] = value if source is None else self._laid_out(name, source)
        data = {"images": self.images, "labels": self.labels, "sample_weight": self.sample_weight}
        return {**found, **data, "class_mask": np.ones(CLASSES), **inputs}

    def _source(self, name: str) -> np.ndarray | None:
        origin = self.network.origins.get(name)
        if origin is None or not origin.source:
            return None
        return dict(self.module.named_parameters())[origin.source].detach().numpy()

    def _laid_out(self, name: str, value: np.ndarray) -> np.ndarray:
        turned = value.T if self.network.origins[name].transposed else value
        return turned.reshape(self.program.tensors[name].shape)

    def truth(self) -> dict[str, np.ndarray]:
        """Loss, logits and every parameter's gradient by torch, in the program's layout."""
        logits = self.module(torch.from_numpy(self.images))
        each = F.cross_entropy(logits, torch.from_numpy(self.labels), reduction="none")
        loss = (each * torch.from_numpy(self.sample_weight)).sum()
        params = dict(self.module.named_parameters())
        grads = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        sources = {name: origin.source for name, origin in self.network.origins.items()}
        assert sorted(sources.values()) == sorted(params)
        named = {f"grad::{n}": self._laid_out(n, grads[source].numpy()) for n, source in sources.items()}
        outputs = {"loss": loss.detach().numpy(), self.program.outputs["logits"]: logits.detach().numpy()}
        return {**named, **outputs}


def parameter_case(module: nn.Module, shape: tuple[int, ...], samples: int = 4) -> Case:
    rng = np.random.default_rng(7)
    network = capture(module, shape)
    program = differentiate(network.program, {}, steps=2)
    images, labels = rng.normal(size=(samples, *shape)), rng.integers(0, CLASSES, samples)
    return Case(module.double(), network, program, images, labels, rng.uniform(0.1, 0.5, samples))
