"""Small modules that together hold every operation ONNX Runtime training is given, and losses for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .cases import stack

Make = Callable[[], nn.Module]
Given = dict[str, torch.Tensor]
IMAGE = (2, 6, 5)


@dataclass(frozen=True)
class OrtCase:
    """A module on samples of a shape, and the operations of the program that it is there for."""

    kinds: tuple[str, ...]
    make: Make
    shape: tuple[int, ...] = IMAGE


def between(*middles: nn.Module) -> nn.Module:
    """Modules of 8 values each behind a linear layer of its own, and a head."""
    parts: dict[str, nn.Module] = {"flat": nn.Flatten()}
    for index, middle in enumerate(middles):
        parts |= {f"fc{index}": nn.Linear(8 if index else 60, 8), f"middle{index}": middle}
    return stack(**parts, head=nn.Linear(8, 3))


def convolutions() -> nn.Module:
    """Strided, grouped, depthwise and dilated ones."""
    return stack(
        a=nn.Conv2d(2, 6, 3, padding=1),
        b=nn.Conv2d(6, 6, 3, padding=1, groups=6),
        c=nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2, bias=False),
        d=nn.Conv2d(8, 4, 3, 2, 1),
        flat=nn.Flatten(),
        head=nn.Linear(4 * 9, 3),
    )


def norms() -> nn.Module:
    """Of maps and, twice the same, of vectors."""
    return stack(
        a=nn.Conv2d(2, 6, 3, padding=1),
        norm=nn.GroupNorm(3, 6),
        b=nn.Conv2d(6, 4, 3, padding=1),
        wide=nn.GroupNorm(2, 4, eps=1e-3),
        flat=nn.Flatten(),
        fc=nn.Linear(120, 8),
        vectors=nn.GroupNorm(2, 8),
        hidden=nn.Linear(8, 8),
        alike=nn.GroupNorm(2, 8),
        head=nn.Linear(8, 3),
    )


def piecewise() -> nn.Module:
    """Activations with kinks; PReLU with a slope for each channel and with one."""
    return stack(
        stem=nn.Conv2d(2, 4, 3, padding=1),
        slopes=nn.PReLU(4),
        rest=between_maps(
            nn.ReLU(), nn.LeakyReLU(0.2), nn.ReLU6(), nn.Hardswish(), nn.PReLU(), nn.Hardsigmoid()
        ),
    )


def between_maps(*middles: nn.Module) -> nn.Module:
    """`between` behind a map of 4 channels."""
    return stack(flat=nn.Flatten(), first=nn.Linear(120, 60), chain=between(*middles))


def smooth() -> nn.Module:
    """Activations without kinks."""
    return between(
        nn.ELU(0.7), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Tanh(), nn.Sigmoid(), nn.Softmax(dim=-1)
    )


class Maps(nn.Module):
    """Pools, resizing, padding, and channels weighed by their means."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.windows = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.AvgPool2d(2, 1, 1)
        )
        self.affine = nn.BatchNorm2d(6).eval()
        self.squeeze = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(12 * 4 * 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.windows(self.affine(self.stem(x)))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = nn.functional.interpolate(nn.functional.pad(x, (1, 0, 0, 1)), size=(9, 6), mode="bilinear")
        x = nn.functional.max_pool2d(x - nn.functional.interpolate(x[:, :, :3, :2], size=(9, 6)), 2)
        return self.head(torch.flatten(torch.cat([x, 0.5 - x], 1), 1))


class Tokens(nn.Module):
    """One block of a vision transformer: class token, positions, attention by matrix products, LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(10, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 7, 8))
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.project = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x.transpose(1, 2).reshape(-1, 6, 10))
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        q, k, v = (part.reshape(-1, 7, 2, 4).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        weights = torch.softmax(q @ k.transpose(-2, -1) / 2, -1)
        x = x + self.project((weights @ v).transpose(1, 2).reshape(-1, 7, 8))
        return self.head(x[:, 0])


PIECEWISE = ("Relu", "LeakyRelu", "Clip", "HardSwish", "HardSigmoid", "PRelu")
SMOOTH = ("Elu", "Silu", "Gelu", "Tanh", "Sigmoid", "Softmax")
MAPS = ("MaxPool", "AveragePool", "Mean", "Mul", "Pad", "Resize", "Sub", "Concat", "Slice", "Scale")
TOKENS = ("LayerNorm", "MatMul", "Transpose", "Expand", "Affine", "Add")
CASES: dict[str, OrtCase] = {
    "convolutions": OrtCase(("Conv", "Fc", "Reshape"), convolutions),
    "norms": OrtCase(("GroupNorm",), norms),
    "piecewise": OrtCase(PIECEWISE, piecewise),
    "smooth": OrtCase(SMOOTH, smooth),
    "maps": OrtCase(MAPS, Maps),
    "tokens": OrtCase(TOKENS, Tokens),
}


@dataclass(frozen=True)
class LossCase:
    """A loss by its name in manifests: what it reads, and what torch computes, summed over the samples.

    `learned`: parameters of the module that only the loss reads.
    """

    name: str
    inputs: tuple[str, ...]
    total: Callable[[torch.Tensor, Given], torch.Tensor]
    label_smoothing: float = 0.0
    learned: tuple[str, ...] = ()


def cross_entropy(smoothing: float) -> Callable[[torch.Tensor, Given], torch.Tensor]:
    """Over the classes in use."""

    def total(logits: torch.Tensor, given: Given) -> torch.Tensor:
        used = logits[:, given["class_mask"] > 0]
        return nn.functional.cross_entropy(used, given["labels"], reduction="sum", label_smoothing=smoothing)

    return total


def squared_error(outputs: torch.Tensor, given: Given) -> torch.Tensor:
    return (outputs - given["targets"]).square().mean(dim=1).sum()


def categorical(logits: torch.Tensor, given: Given) -> torch.Tensor:
    policy = torch.distributions.Categorical(logits=logits)
    return -(policy.log_prob(given["actions"]) * given["advantages"]).mean(dim=1).sum()


def gaussian(mean: torch.Tensor, given: Given) -> torch.Tensor:
    policy = torch.distributions.Normal(mean, given["log_std"].exp())
    return -(policy.log_prob(given["actions"]).sum(-1) * given["advantages"]).mean(dim=1).sum()


class Policy(nn.Module):
    """Outputs for every one of five time steps; log_std is read by the Gaussian loss only."""

    def __init__(self, *, continuous: bool) -> None:
        super().__init__()
        self.body = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)
        if continuous:
            self.log_std = nn.Parameter(torch.tensor([0.1, -0.2, 0.3]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x)))


EPISODE = (5, 6)
PLAIN_LOSS = LossCase("softmax-cross-entropy", ("labels", "class_mask"), cross_entropy(0.0))
SMOOTHED = LossCase("softmax-cross-entropy", ("labels", "class_mask"), cross_entropy(0.2), 0.2)
LOSSES: dict[str, tuple[OrtCase, LossCase]] = {
    "label-smoothing": (CASES["convolutions"], SMOOTHED),
    "squared-error": (CASES["convolutions"], LossCase("mean-squared-error", ("targets",), squared_error)),
    "categorical": (
        OrtCase(("CategoricalPolicyGradient",), lambda: Policy(continuous=False), EPISODE),
        LossCase("categorical-policy-gradient", ("actions", "advantages"), categorical),
    ),
    "gaussian": (
        OrtCase(("GaussianPolicyGradient",), lambda: Policy(continuous=True), EPISODE),
        LossCase("gaussian-policy-gradient", ("actions", "advantages"), gaussian, learned=("log_std",)),
    ),
}
