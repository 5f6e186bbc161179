"""What each layer's step size costs, and which layers to freeze for good: one object per penalty.

A penalty adds strength * sum_{l,k} c_l * alpha[l,k] to the outer loss (p-Meta, eq. 9; alpha >= 0), with c
normalised to mean 1 over layers so that its strength does not depend on the input's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...edge.cost import Layer, Table, accumulator_bytes, peak_dynamic_bytes


def _normalised(costs: Sequence[float]) -> Tensor:
    values = torch.tensor(costs, dtype=torch.float64)
    return values / values.mean()


@dataclass(frozen=True)
class LayerPenalty:
    """Every step size of a layer costs the same words."""

    words: Callable[[Layer], int]

    def gradient(self, table: Table, alpha: Tensor) -> Tensor:
        """d(sum c_l alpha[l,k])/d alpha, (K, L)."""
        costs = _normalised([self.words(layer) for layer in table])
        return costs.to(alpha).expand_as(alpha)


class PeakPenalty:
    """Penalises max_k alpha[l,k] by the bytes a layer adds to the plan that updates all above it."""

    def gradient(self, table: Table, alpha: Tensor) -> Tensor:
        """c_l at each layer's largest step size (the first one on ties), 0 elsewhere."""
        count = len(table)
        from_top = [peak_dynamic_bytes(table, [i >= lowest for i in range(count)]) for lowest in range(count)]
        added = [above - below for above, below in zip(from_top, [*from_top[1:], 0], strict=True)]
        added[-1] = accumulator_bytes(table, [False] * (count - 1) + [True])
        largest = torch.zeros_like(alpha).scatter_(0, alpha.argmax(0, keepdim=True), 1.0)
        return largest * _normalised(added).to(alpha)


class NoPenalty:
    """Nothing costs anything."""

    def gradient(self, table: Table, alpha: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(alpha)


Penalty = NoPenalty | LayerPenalty | PeakPenalty

PENALTIES: dict[str, Penalty] = {
    "none": NoPenalty(),
    "activations": LayerPenalty(lambda layer: layer.input_words),
    "activations+gradients": LayerPenalty(lambda layer: layer.input_words + layer.weight_words),
    "peak": PeakPenalty(),
}


def layers_within(
    table: Table, updated: Sequence[bool], benefit: Sequence[float], target_fraction: float
) -> list[bool]:
    """Freeze whole layers until the planned peak is at most target_fraction of the dense plan.

    Greedy: of all single layers and all runs of layers from the bottom, freeze the one that loses the least
    benefit per planned byte saved; the output layer stays. Then give back, most beneficial first, what a run
    froze along with the layer that mattered (a norm below a large convolution costs next to nothing).

    Args:
        table: the layers.
        updated: layers that are updated so far.
        benefit: first-order loss decrease of each layer, summed over steps.
        target_fraction: of the plan that updates every layer.

    Raises:
        ValueError: names the smallest fraction that can be reached.
    """
    dense = peak_dynamic_bytes(table, [True] * len(table))
    smallest = peak_dynamic_bytes(table, [layer.is_output for layer in table]) / dense
    if smallest > target_fraction:
        raise ValueError(
            f"target_fraction {target_fraction} cannot be met: updating only {table[-1].name} needs "
            f"{smallest:.3f} of the dense plan; raise target_fraction"
        )
    mask = [on or layer.is_output for on, layer in zip(updated, table, strict=True)]
    while (peak := peak_dynamic_bytes(table, mask)) > target_fraction * dense:
        mask = min(_frozen_further(table, mask), key=lambda less: _price(table, mask, less, benefit, peak))
    for index in sorted(range(len(table)), key=lambda i: -benefit[i]):
        more = [on or i == index for i, on in enumerate(mask)]
        if updated[index] and peak_dynamic_bytes(table, more) <= target_fraction * dense:
            mask = more
    return mask


def _frozen_further(table: Table, mask: Sequence[bool]) -> list[list[bool]]:
    movable = [i for i, layer in enumerate(table) if mask[i] and not layer.is_output]
    runs = [{j for j in movable if j <= i} for i in movable] + [{i} for i in movable]
    return [[on and i not in run for i, on in enumerate(mask)] for run in runs]


def _price(
    table: Table, mask: Sequence[bool], less: Sequence[bool], benefit: Sequence[float], peak: int
) -> float:
    """Benefit lost per byte saved; infinite where nothing is saved."""
    lost = sum(value for value, on, still in zip(benefit, mask, less, strict=True) if on and not still)
    saved = peak - peak_dynamic_bytes(table, less)
    return max(lost, 0.0) / saved if saved > 0 else float("inf")
