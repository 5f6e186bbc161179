"""The plan: offsets for every buffer of a lowered program, and what the whole adaptation will need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..lower.table import Lowered

STATIC_TERMS = ("weights", "program", "attention", "input")


@dataclass(frozen=True)
class Placed:
    """A buffer's place in the arena during one span of time (indices of steps), for pictures and checks."""

    program: int
    name: str
    term: str
    offset: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class Plan:
    """Everything known about an adaptation before anything is allocated.

    Attributes:
        planned_peak_bytes: static + the larger of the arena and the price of decoding one image.
        static_bytes: weights (frozen ones mapped, updated ones copied), the lowered step table, attention
            parameters, and the support set as uint8 with its labels (the papers, too, count the samples as
            static memory).
        dynamic_bytes: size of the arena.
        terms: bytes at the peak instant by term; they sum to `planned_peak_bytes`.
        samples: support samples planned for.
        micro_batch: samples per forward and backward run.
        steps: gradient steps.
        schedule: "accumulate".
        storage: "dense" or "sparse".
        layers: per gradient step the names of the updated layers.
        macs: multiply-accumulates of the whole adaptation.
        predicted_seconds: a ranking of plans rather than a promise.
        cap_cut: share of the channels kept for weight gradients that was cut to fit the budget.
        lowered: the step programs.
        offsets: per step program, buffer name to arena offset.
    """

    planned_peak_bytes: int
    static_bytes: int
    dynamic_bytes: int
    terms: Mapping[str, int]
    samples: int
    micro_batch: int
    steps: int
    schedule: str
    storage: str
    layers: tuple[tuple[str, ...], ...]
    macs: int
    predicted_seconds: float
    cap_cut: float
    lowered: Lowered
    offsets: tuple[Mapping[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values, without the step table."""
        raise NotImplementedError

    def placed(self) -> list[Placed]:
        """Return every buffer's spans in the arena, step program by step program."""
        raise NotImplementedError
