"""Small modules that together hold every operation ONNX Runtime training is given, and losses for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .cases import conv_then, stack

Make = Callable[[], nn.Module]
IMAGE = (2, 6, 5)
FEATURES = 6 * 30


@dataclass(frozen=True)
class OrtCase:
    """A module on samples of a shape, and the operation of the program that it is there for."""

    kind: str
    make: Make
    shape: tuple[int, ...] = IMAGE


def after_conv(kind: str, middle: Make, features: int = FEATURES) -> OrtCase:
    """The operation between a convolution, which needs its input's gradient, and the head."""
    return OrtCase(kind, lambda: conv_then(middle(), features))


CASES: dict[str, OrtCase] = {
    "conv-strided": after_conv("Conv", lambda: nn.Conv2d(6, 4, 3, 2, 1), 4 * 9),
    "conv-depthwise": after_conv("Conv", lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6)),
    "conv-dilated": after_conv("Conv", lambda: nn.Conv2d(6, 4, 3, padding=2, dilation=2), 4 * 30),
    "fc": OrtCase(
        "Fc", lambda: stack(flat=nn.Flatten(), a=nn.Linear(60, 8), relu=nn.ReLU(), b=nn.Linear(8, 3))
    ),
    "group-norm": after_conv("GroupNorm", lambda: nn.GroupNorm(3, 6)),
    "group-norm-of-vectors": OrtCase(
        "GroupNorm",
        lambda: stack(f=nn.Flatten(), a=nn.Linear(60, 8), n=nn.GroupNorm(2, 8), b=nn.Linear(8, 3)),
    ),
    "relu": after_conv("Relu", nn.ReLU),
    "max-pool": after_conv("MaxPool", lambda: nn.MaxPool2d(2), 6 * 6),
    "max-pool-overlapping": after_conv("MaxPool", lambda: nn.MaxPool2d(3, 2, 1), 6 * 9),
    "reshape": after_conv("Reshape", nn.Identity),
}


@dataclass(frozen=True)
class LossCase:
    """A loss by its name in manifests, and what torch computes, summed over the samples."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    total: Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]
    label_smoothing: float = 0.0


def cross_entropy(smoothing: float) -> Callable[[torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]:
    """Over the first two of three classes."""

    def total(logits: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
        used = logits[:, given["class_mask"] > 0]
        return nn.functional.cross_entropy(used, given["labels"], reduction="sum", label_smoothing=smoothing)

    return total


def squared_error(outputs: torch.Tensor, given: dict[str, torch.Tensor]) -> torch.Tensor:
    return (outputs - given["targets"]).square().mean(dim=1).sum()


LOSSES: dict[str, LossCase] = {
    "softmax-cross-entropy": LossCase(
        "softmax-cross-entropy", "SoftmaxCrossEntropy", ("labels", "class_mask"), cross_entropy(0.0)
    ),
}
