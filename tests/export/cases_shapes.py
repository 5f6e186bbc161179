"""Small modules around operations that move, combine, pool or multiply values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edge_adapt.export.autodiff import differentiate
from edge_adapt.export.capture import to_onnx
from edge_adapt.export.onnx_import import import_forward
from edge_adapt.export.reading.shapes import with_shapes
from edge_adapt.export.source import AttentionSettings
from onnx import ModelProto
from torch import nn
from torch.nn import functional as F

from .cases import Example

SHAPE = (2, 6, 4)  # of a sample; the function sees (N, 4, 6, 4)


class Around(nn.Module):
    """A convolution, functions of its output (and of a second convolution's), and a linear layer on all results."""

    def __init__(self, functions: Sequence[Callable[..., torch.Tensor]], operands: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        if operands == 2:
            self.gate = nn.Conv2d(2, 4, 1)
        self.functions = functions
        self.head = nn.Identity()
        with torch.no_grad():
            features = self(torch.zeros(1, *SHAPE)).shape[1]
        self.head = nn.Linear(features, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        operands = [self.stem(x), self.gate(x)] if hasattr(self, "gate") else [self.stem(x)]
        return self.head(torch.cat([function(*operands).flatten(1) for function in self.functions], 1))


def tokens(x: torch.Tensor) -> torch.Tensor:
    """(N, 4, 6, 4) as 6 tokens of 16 numbers."""
    return x.permute(0, 2, 1, 3).flatten(2)


ONE: dict[str, list[Callable[[Any], Any]]] = {
    "arithmetic": [
        lambda x: 1 - (x / 3 + 2) * 0.3,
        lambda x: -x,
        lambda x: (x - 0.7) + 1,
        lambda x: x * x.mean((2, 3), keepdim=True),
        lambda x: x - x.mean(1, keepdim=True),
        lambda x: x.mean((1, 3), keepdim=True) - x,
        lambda x: x * x,
        lambda x: x + x,
    ],
    "means": [
        lambda x: x.mean((2, 3)),
        lambda x: x.mean(1),
        lambda x: x.mean((1, 2, 3), keepdim=True),
        lambda x: tokens(x).mean(1),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((3, 2)),
        lambda x: F.adaptive_avg_pool1d(x.flatten(2), 8),
    ],
    "max-pools": [
        nn.AdaptiveMaxPool2d((2, 2)),
        nn.AdaptiveMaxPool2d(1),
        lambda x: x.amax((2, 3)),
        lambda x: F.max_pool1d(x.flatten(2), 3, 2, 1),
        lambda x: F.max_pool2d(F.pad(x, (9, 9, 9, 9)), (17, 18), 2),
        nn.MaxPool2d((4, 3), 3, ceil_mode=True),
        nn.MaxPool2d(2, 3),
    ],
    "average-pools": [
        nn.AvgPool2d((3, 2), (2, 1)),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(4, 3, ceil_mode=True),
        lambda x: F.avg_pool1d(x.flatten(2), 4, 3, 2),
    ],
    "views": [
        lambda x: x.permute(0, 3, 1, 2),
        lambda x: x.flatten(2).transpose(1, 2),
        lambda x: x.view(x.shape[0], 2, -1),
        lambda x: x.reshape(-1, 8, 12),
        lambda x: x.unflatten(1, (2, 2)).transpose(1, 3),
        lambda x: x[:, :1].squeeze(1).unsqueeze(2),
        lambda x: x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)[:, :3],
    ],
    "parts": [
        lambda x: torch.cat(x.chunk(2, 1)[::-1], 2),
        lambda x: x.chunk(4, 2)[1] * x.chunk(4, 2)[2],
        lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
        lambda x: x.split(3, -1)[1],
        lambda x: x.unbind(1)[2],
        lambda x: torch.stack([x[:, 0], x[:, 3]], 1),
        lambda x: torch.roll(x, 2, 2)[:, 1:],
    ],
    "cuts": [
        lambda x: x[:, 0],
        lambda x: x[:, :, -1],
        lambda x: x[..., 2:],
        lambda x: x[:, 1:-1, 2:4],
        lambda x: F.pad(x, (1, 2, 0, 1)),
        lambda x: F.pad(x, (0, 1, 2, 0), value=-1.5),
        lambda x: F.pad(x, (-1, 0, -2, -1)),
    ],
    "resizes": [
        nn.Upsample(scale_factor=2),
        lambda x: F.interpolate(x, (9, 3)),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        lambda x: F.interpolate(x, (4, 7), mode="bilinear"),
        nn.Upsample(size=(9, 7), mode="bilinear", align_corners=True),
    ],
    "products": [
        lambda x: x @ x.transpose(-2, -1),
        lambda x: x.transpose(-2, -1) @ x,
        lambda x: x.transpose(-2, -1) @ x.mT.transpose(-2, -1),
        lambda x: tokens(x) @ x.flatten(2)[:, :, :16].transpose(1, 2),
        lambda x: torch.einsum("bhid,bhjd->bhij", x, x * 2),
        lambda x: torch.einsum("bhji,bhjd->bhdi", x, x * x),
    ],
}  # fmt: skip
"""Groups of functions of one value: each group is one module."""

TWO: dict[str, list[Callable[[Any, Any], Any]]] = {
    "sums": [
        lambda a, b: a + b,
        lambda a, b: a + b.mean(2, keepdim=True),
        lambda a, b: a.mean(1, keepdim=True) + b.mean((2, 3), keepdim=True),
        lambda a, b: a - b,
        lambda a, b: a - b.mean((1, 3), keepdim=True),
        lambda a, b: a * b.mean((2, 3)).unsqueeze(-1).unsqueeze(-1) + b.mean((2, 3), keepdim=True),
    ],
    "gates": [
        lambda a, b: a * b,
        lambda a, b: a * b.mean((2, 3), keepdim=True),
        lambda a, b: b.mean((2, 3))[:, :, None, None] * a,
        lambda a, b: torch.cat([a, b, a], 1),
        lambda a, b: torch.cat([a[..., :2], b], -1),
        lambda a, b: a @ b.transpose(2, 3),
    ],
}
"""Groups of functions of two values."""


def names() -> list[str]:
    return [*ONE, *TWO]


@cache
def built(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Around(ONE[name]) if name in ONE else Around(TWO[name], 2)


@cache
def exported(name: str) -> ModelProto:
    """What torch's exporter writes."""
    return to_onnx(built(name), SHAPE)


@cache
def case(name: str) -> Example:
    """As `capture` does it, from the graph exported once."""
    module = built(name).double()
    params = frozenset(part for part, _ in module.named_parameters())
    model = with_shapes(Path(name), exported(name), params, SHAPE)
    program = differentiate(import_forward(model, params).program, {}, steps=1)
    rng = np.random.default_rng(0)
    return Example(
        module, program, {}, rng.normal(size=(4, *SHAPE)), rng.integers(0, 3, 4), {}, AttentionSettings()
    )
