"""A candidate of the budget search: one way to run an adaptation, priced before its buffers are placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..lower import Choice, Lowered, Target, lower
from ..program import Program
from .figures import figures_of
from .freezing import Level, Mask, Worth
from .plan import Plan, make_plan
from .static import static_bytes

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
    worth: Sequence[Worth] | None = None


@dataclass(frozen=True)
class Budgets:
    """Bounds in bytes on the planned peak and on the arena; None: no bound."""

    memory: int | None = None
    dynamic: int | None = None

    @property
    def bounded(self) -> bool:
        """Whether there is a bound at all."""
        return self.memory is not None or self.dynamic is not None

    def allow(self, size: Size) -> bool:
        """Whether both figures are within their bounds."""
        within_memory = self.memory is None or size.peak <= self.memory
        return within_memory and (self.dynamic is None or size.dynamic <= self.dynamic)


@dataclass(frozen=True)
class Size:
    """Bytes of the planned peak and of the arena."""

    peak: int
    dynamic: int


@dataclass(frozen=True)
class Summary:
    """What is known of a candidate before its buffers are placed; `least` is a lower bound."""

    seconds: float
    least: Size


@dataclass(frozen=True)
class Family:
    """Candidates that differ only in their micro-batch.

    It keeps figures only, no step table: many families together stay small.

    Attributes:
        request: what is planned.
        level: which layers are updated.
        cap_cut: share of the channels kept for weight gradients that is cut.
        caps: those of the cut, per gradient step; None: the program's.
        choice: how it runs, with a micro-batch of 1.
        micro_batches: all that are considered.
    """

    request: Request
    level: Level
    cap_cut: float
    caps: tuple[Caps, ...] | None
    choice: Choice
    micro_batches: tuple[int, ...]

    @cached_property
    def summaries(self) -> dict[int, Summary]:
        """What is known without placing anything, by micro-batch."""
        ask, lowered = self.request, self.lowered(1)
        figures = figures_of(lowered, ask.target)
        fixed = max((one.batch for one in lowered.programs if lowered.prefix is not None), default=1)
        found = {}
        for micro_batch in self.micro_batches:
            batch = max(micro_batch, fixed)
            static = static_bytes(ask.program, lowered, ask.sample_bytes, 0, batch).total
            live = figures.live_bytes(micro_batch)
            least = Size(static + max(live, ask.decode_bytes), live)
            found[micro_batch] = Summary(figures.seconds(micro_batch), least)
        return found

    def lowered(self, micro_batch: int) -> Lowered:
        """Make the step programs."""
        ask, choice = self.request, replace(self.choice, micro_batch=micro_batch)
        return lower(ask.program, self.level.updated, ask.samples, choice, self.caps, ask.target)

    def plan(self, micro_batch: int) -> Plan:
        """Place every buffer."""
        ask, lowered = self.request, self.lowered(micro_batch)
        layers = [
            [layer.name for layer, on in zip(ask.program.layers, mask, strict=True) if on]
            for mask in self.level.updated
        ]
        static = static_bytes(ask.program, lowered, ask.sample_bytes, ask.target.table_bytes(lowered))
        return make_plan(
            lowered, layers, static, ask.target, ask.decode_bytes, self.cap_cut, self.level.freezing
        )


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to run the adaptation."""

    family: Family
    micro_batch: int

    @property
    def summary(self) -> Summary:
        """What is known without placing anything."""
        return self.family.summaries[self.micro_batch]

    def plan(self) -> Plan:
        """Place every buffer."""
        return self.family.plan(self.micro_batch)
