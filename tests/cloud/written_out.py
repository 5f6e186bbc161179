"""Inner loops of one task after another with torch's own layers and plain autograd, for the tests of methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from edge_adapt.cloud.inner.network import Network
from torch import Tensor
from torch.nn import functional as F

Weights = Mapping[str, Tensor]


def loss_of(network: Network, x: Tensor, y: Tensor) -> Callable[[Weights], Tensor]:
    """Mean cross-entropy of one task's samples as a function of the weights."""
    return lambda weights: F.cross_entropy(torch.func.functional_call(network.module, dict(weights), (x,)), y)


def gradient(loss: Callable[[Weights], Tensor], weights: Weights) -> dict[str, Tensor]:
    """Detached gradient at detached weights."""
    leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
    return dict(zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values())), strict=True))


def path(loss: Callable[[Weights], Tensor], weights: Weights, sizes: list[float]) -> list[dict[str, Tensor]]:
    """w_0 .. w_K of plain gradient descent."""
    points = [dict(weights)]
    for size in sizes:
        slope = gradient(loss, points[-1])
        points.append({name: value - size * slope[name] for name, value in points[-1].items()})
    return points
