"""Small modules around one operation that moves, combines, pools or multiplies values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .cases import Example, example

SHAPE = (2, 6, 4)  # of a sample; the function sees (N, 4, 6, 4)


class Around(nn.Module):
    """A convolution, a function of its output (and of a second convolution's), and a linear layer."""

    def __init__(self, function: Callable[..., torch.Tensor], operands: int, channels: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, channels, 3, padding=1)
        if operands == 2:
            self.gate = nn.Conv2d(2, channels, 1)
        self.function = function
        self.head = nn.Identity()
        with torch.no_grad():
            features = self(torch.zeros(1, *SHAPE)).shape[1]
        self.head = nn.Linear(features, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        operands = [self.stem(x), self.gate(x)] if hasattr(self, "gate") else [self.stem(x)]
        return self.head(self.function(*operands).flatten(1))


def tokens(x: torch.Tensor) -> torch.Tensor:
    """(N, 4, 6, 4) as 6 tokens of 16 numbers."""
    return x.permute(0, 2, 1, 3).flatten(2)


ONE: dict[str, Callable[[Any], Any]] = {
    "scale": lambda x: 1 - (x / 3 + 2) * 0.3,
    "negate": lambda x: -x,
    "shift": lambda x: (x - 0.7) + 1,
    "times-its-mean": lambda x: x * x.mean((2, 3), keepdim=True),
    "minus-its-mean": lambda x: x - x.mean(1, keepdim=True),
    "mean-minus-it": lambda x: x.mean((1, 3), keepdim=True) - x,
    "square": lambda x: x * x,
    "twice": lambda x: x + x,
    "mean-of-space": lambda x: x.mean((2, 3)),
    "mean-of-channels": lambda x: x.mean(1),
    "mean-of-all": lambda x: x.mean((1, 2, 3), keepdim=True),
    "mean-of-tokens": lambda x: tokens(x).mean(1),
    "adaptive-to-one": nn.AdaptiveAvgPool2d(1),
    "adaptive-to-some": nn.AdaptiveAvgPool2d((3, 2)),
    "adaptive-signal": lambda x: F.adaptive_avg_pool1d(x.flatten(2), 8),
    "adaptive-max": nn.AdaptiveMaxPool2d((2, 2)),
    "global-max": nn.AdaptiveMaxPool2d(1),
    "amax": lambda x: x.amax((2, 3)),
    "max-pool-signal": lambda x: F.max_pool1d(x.flatten(2), 3, 2, 1),
    "max-pool-large": lambda x: F.max_pool2d(F.pad(x, (9, 9, 9, 9)), (17, 18), 2),
    "max-pool-rounded-up": nn.MaxPool2d((4, 3), 3, ceil_mode=True),
    "max-pool-leftover": nn.MaxPool2d(2, 3),
    "average-pool": nn.AvgPool2d((3, 2), (2, 1)),
    "average-pool-padded": nn.AvgPool2d(3, 2, 1),
    "average-pool-of-real": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average-pool-rounded-up": nn.AvgPool2d(4, 3, ceil_mode=True),
    "average-pool-signal": lambda x: F.avg_pool1d(x.flatten(2), 4, 3, 2),
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "transpose": lambda x: x.flatten(2).transpose(1, 2),
    "view": lambda x: x.view(x.shape[0], 2, -1),
    "reshape": lambda x: x.reshape(-1, 8, 12),
    "unflatten": lambda x: x.unflatten(1, (2, 2)).transpose(1, 3),
    "squeeze": lambda x: x[:, :1].squeeze(1).unsqueeze(2),
    "shuffle-channels": lambda x: x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)[:, :3],
    "chunk": lambda x: torch.cat(x.chunk(2, 1)[::-1], 2),
    "chunk-unevenly": lambda x: x.chunk(4, 2)[1] * x.chunk(4, 2)[2],
    "split": lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    "split-last": lambda x: x.split(3, -1)[1],
    "unbind": lambda x: x.unbind(1)[2],
    "stack": lambda x: torch.stack([x[:, 0], x[:, 3]], 1),
    "first": lambda x: x[:, 0],
    "last": lambda x: x[:, :, -1],
    "from-the-second": lambda x: x[..., 2:],
    "middle": lambda x: x[:, 1:-1, 2:4],
    "roll": lambda x: torch.roll(x, 2, 2)[:, 1:],
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "pad-with-a-value": lambda x: F.pad(x, (0, 1, 2, 0), value=-1.5),
    "crop": lambda x: F.pad(x, (-1, 0, -2, -1)),
    "nearest": nn.Upsample(scale_factor=2),
    "nearest-to-size": lambda x: F.interpolate(x, (9, 3)),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear-to-size": lambda x: F.interpolate(x, (4, 7), mode="bilinear"),
    "bilinear-corners": nn.Upsample(size=(9, 7), mode="bilinear", align_corners=True),
    "matmul": lambda x: x @ x.transpose(-2, -1),
    "matmul-transposed": lambda x: x.transpose(-2, -1) @ x,
    "matmul-both-transposed": lambda x: x.transpose(-2, -1) @ x.mT.transpose(-2, -1),
    "matmul-of-tokens": lambda x: tokens(x) @ x.flatten(2)[:, :, :16].transpose(1, 2),
    "einsum-scores": lambda x: torch.einsum("bhid,bhjd->bhij", x, x * 2),
    "einsum-mixture": lambda x: torch.einsum("bhji,bhjd->bhdi", x, x * x),
}  # fmt: skip

TWO: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "add-row": lambda a, b: a + b.mean(2, keepdim=True),
    "add-both-repeated": lambda a, b: a.mean(1, keepdim=True) + b.mean((2, 3), keepdim=True),
    "subtract": lambda a, b: a - b,
    "subtract-column": lambda a, b: a - b.mean((1, 3), keepdim=True),
    "multiply": lambda a, b: a * b,
    "squeeze-excite": lambda a, b: a * b.mean((2, 3), keepdim=True),
    "excite-from-the-left": lambda a, b: b.mean((2, 3))[:, :, None, None] * a,
    "modulate": lambda a, b: a * b.mean((2, 3)).unsqueeze(-1).unsqueeze(-1) + b.mean((2, 3), keepdim=True),
    "concat": lambda a, b: torch.cat([a, b, a], 1),
    "concat-last": lambda a, b: torch.cat([a[..., :2], b], -1),
    "matmul-of-two": lambda a, b: a @ b.transpose(2, 3),
}


def names() -> list[str]:
    return [*ONE, *TWO]


@cache
def built(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Around(ONE[name], 1) if name in ONE else Around(TWO[name], 2)


@cache
def case(name: str) -> Example:
    return example(built(name), SHAPE, attended=False)
