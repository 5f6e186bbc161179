"""Freezing layers to fit a budget: nested sets, what is lost least per byte first.

Freezing costs accuracy, so it is the last thing the search does and the first thing a larger budget takes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..program import Program

Mask = tuple[bool, ...]
BY_BENEFIT = "layers with the smallest benefit per byte are frozen first"
FRONT_FIRST = "the bundle knows no benefits: front layers are frozen first"


@dataclass(frozen=True)
class Worth:
    """What updating one layer gives and takes.

    Attributes:
        benefit: first-order decrease of the loss per gradient step; None where it was not measured.
        bytes: its gradient and what is kept of its input for one sample.
    """

    benefit: tuple[float, ...] | None
    bytes: int


@dataclass(frozen=True)
class Freezing:
    """What a plan froze to fit its budget.

    Attributes:
        layers: per gradient step the names of the layers that are not updated although they have a step size.
        benefit_lost: share of the benefit of all updates; None where it is not known.
        reason: in what order layers were frozen; "" where none is.
    """

    layers: tuple[tuple[str, ...], ...]
    benefit_lost: float | None = 0.0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "layers": [list(names) for names in self.layers],
            "benefit_lost": self.benefit_lost,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Level:
    """Which layers each gradient step updates, and what was frozen."""

    updated: tuple[Mask, ...]
    freezing: Freezing = field(compare=False)


def unfrozen(updated: tuple[Mask, ...]) -> Level:
    """Return the level that freezes nothing."""
    return Level(updated, Freezing(((),) * len(updated)))


def levels(program: Program, updated: tuple[Mask, ...], worth: Sequence[Worth] | None) -> list[Level]:
    """Return nested levels, each with one more layer frozen in all steps; the last leaves one layer."""
    layers = [i for i in range(len(program.layers)) if any(mask[i] for mask in updated)]
    benefits = None if worth is None else _benefits(updated, worth, layers)
    if worth is None or benefits is None:
        order, reason = layers, FRONT_FIRST
    else:
        known = dict(zip(layers, benefits, strict=True))
        order = sorted(layers, key=lambda i: known[i] / max(1, worth[i].bytes))
        reason = BY_BENEFIT
    found = []
    for count in range(1, len(order)):
        frozen = set(order[:count])
        lost = None if benefits is None else _lost(layers, benefits, frozen)
        masks = tuple(tuple(on and i not in frozen for i, on in enumerate(mask)) for mask in updated)
        names = tuple(
            tuple(program.layers[i].name for i, on in enumerate(mask) if on and i in frozen)
            for mask in updated
        )
        found.append(Level(masks, Freezing(names, lost, reason)))
    return found


def _benefits(updated: Sequence[Mask], worth: Sequence[Worth], layers: Sequence[int]) -> list[float] | None:
    """Return every layer's benefit over the steps that update it; None if some is not known."""
    result = []
    for layer in layers:
        benefit = worth[layer].benefit
        if benefit is None:
            return None
        steps = (step for step, mask in enumerate(updated) if mask[layer])
        result.append(sum(max(0.0, benefit[min(step, len(benefit) - 1)]) for step in steps))
    return result


def _lost(layers: Sequence[int], benefits: Sequence[float], frozen: set[int]) -> float:
    lost = sum(benefit for layer, benefit in zip(layers, benefits, strict=True) if layer in frozen)
    return lost / sum(benefits) if lost else 0.0
