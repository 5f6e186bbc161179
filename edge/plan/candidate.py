"""A candidate of the budget search: one way to run an adaptation, priced before its buffers are placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ..lower import Choice, Lowered, Target, lower
from ..program import Program
from .offsets import live_bytes
from .plan import Plan, make_plan
from .static import static_bytes
from .work import predicted_seconds

Mask = tuple[bool, ...]
Caps = Mapping[str, int]


@dataclass(frozen=True)
class Request:
    """What has to be planned; the arguments of `search_plan` without budgets."""

    program: Program
    updated: tuple[Mask, ...]
    samples: int
    sample_bytes: int | None
    decode_bytes: int
    target: Target


@dataclass(frozen=True)
class Budgets:
    """Bounds in bytes on the planned peak and on the arena; None: no bound."""

    memory: int | None
    dynamic: int | None

    def allow(self, peak_bytes: int, dynamic_bytes: int) -> bool:
        """Whether both figures are within their bounds."""
        within_memory = self.memory is None or peak_bytes <= self.memory
        return within_memory and (self.dynamic is None or dynamic_bytes <= self.dynamic)


@dataclass(frozen=True)
class Summary:
    """What is known of a candidate before its buffers are placed; the bytes are lower bounds."""

    seconds: float
    least_peak_bytes: int
    least_dynamic_bytes: int


@dataclass(frozen=True)
class Candidate:
    """One way to run the adaptation; `caps` are those of the cut, per gradient step.

    It keeps figures only, no step table: many candidates together stay small.
    """

    request: Request
    choice: Choice
    cap_cut: float
    caps: tuple[Caps, ...] | None

    def lowered(self) -> Lowered:
        """Make the step programs."""
        ask = self.request
        return lower(ask.program, ask.updated, ask.samples, self.choice, self.caps, ask.target)

    @cached_property
    def summary(self) -> Summary:
        """What is known without placing anything."""
        ask, lowered = self.request, self.lowered()
        static = static_bytes(ask.program, lowered, ask.sample_bytes, step_table_bytes=0).total
        live = max(live_bytes([b.segments for b in one.buffers]) for one in lowered.all_programs)
        live += sum(cache.bytes for cache in lowered.caches)
        return Summary(predicted_seconds(lowered, ask.target), static + max(live, ask.decode_bytes), live)

    @property
    def rank(self) -> tuple[float, float]:
        """What the search minimises."""
        return self.cap_cut, self.summary.seconds

    def plan(self) -> Plan:
        """Place every buffer."""
        ask, lowered = self.request, self.lowered()
        layers = [
            [layer.name for layer, on in zip(ask.program.layers, mask, strict=True) if on]
            for mask in ask.updated
        ]
        static = static_bytes(ask.program, lowered, ask.sample_bytes, ask.target.table_bytes(lowered))
        return make_plan(lowered, layers, static, ask.target, ask.decode_bytes, self.cap_cut)

    def plan_within(self, budgets: Budgets) -> Plan | None:
        """Return the plan if it fits; nothing is placed where the lower bounds tell already."""
        if not budgets.allow(self.summary.least_peak_bytes, self.summary.least_dynamic_bytes):
            return None
        plan = self.plan()
        return plan if budgets.allow(plan.planned_peak_bytes, plan.dynamic_bytes) else None
