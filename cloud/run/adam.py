"""Adam (Kingma & Ba 2015) as a function: tensors by name in, new ones out, nothing changed in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class AdamState:
    """Running means of the gradients and of their squares by name, and the number of steps behind them."""

    steps: int
    first: dict[str, Tensor]
    second: dict[str, Tensor]

    def to(self, device: str) -> AdamState:
        """The same state, its tensors elsewhere."""
        first, second = (
            {name: value.to(device) for name, value in own.items()} for own in (self.first, self.second)
        )
        return AdamState(self.steps, first, second)


def init(values: Mapping[str, Tensor]) -> AdamState:
    """The state before the first step."""
    zeros = {name: torch.zeros_like(value) for name, value in values.items()}
    return AdamState(0, zeros, dict(zeros))


def update(
    values: Mapping[str, Tensor], grads: Mapping[str, Tensor], state: AdamState, rates: Mapping[str, float]
) -> tuple[dict[str, Tensor], AdamState]:
    """One step with a learning rate per name; no weight decay.

    Raises:
        KeyError: a name has no gradient or no rate.
    """
    steps = state.steps + 1
    first = {name: BETA1 * state.first[name] + (1 - BETA1) * grads[name] for name in values}
    second = {name: BETA2 * state.second[name] + (1 - BETA2) * grads[name].square() for name in values}
    to_first, to_second = 1 / (1 - BETA1**steps), 1 / (1 - BETA2**steps)
    moved = {
        name: value - rates[name] * to_first * first[name] / ((second[name] * to_second).sqrt() + EPS)
        for name, value in values.items()
    }
    return moved, AdamState(steps, first, second)
