"""Conjugate gradients on many systems at once, one per task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """x (T, P) and the relative residuals |b - A x| / |b| (T,), 0 where b = 0."""

    x: Tensor
    residual: Tensor


def conjugate_gradient(apply: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Solution:
    """Solve A_t x_t = b_t for T symmetric matrices, from 0.

    A system stops where p'Ap <= 0 (solved exactly, or not positive definite); numbers that are none go through
    to x, so that training notices them.

    Args:
        apply: the products A_t p_t of rows (T, P).
        b: right-hand sides (T, P).
        steps: most iterations.
    """
    x, residual, direction = torch.zeros_like(b), b, b
    squared = first = _dot(b, b)
    running = torch.ones_like(squared, dtype=torch.bool)
    for _ in range(steps):
        image = apply(direction)
        curvature = _dot(direction, image)
        running = running & ~(curvature <= 0)
        if not running.any():
            break
        size = torch.where(running, squared / curvature, 0)[:, None]
        x, residual = x + size * direction, residual - size * image
        previous, squared = squared, _dot(residual, residual)
        turn = torch.where(running, squared / previous, 0)[:, None]
        direction = residual + turn * direction
    return Solution(x, torch.where(first == 0, 0, (squared / first).sqrt()))


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)
