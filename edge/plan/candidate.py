"""A candidate of the budget search: one way to run an adaptation, priced before its buffers are placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..lower import Choice, Lowered, Target, lower, lower_predict
from ..program import Program
from .figures import figures_of
from .freezing import Level, Mask, Worth
from .plan import Plan, arena_layout, make_plan
from .static import static_bytes, weights_bytes

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

    @cached_property
    def predict_bytes(self) -> int:
        """Arena of the prediction that follows an adaptation, one sample at a time."""
        return arena_layout(lower_predict(self.program, 1, self.target).programs[0])[1]


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
        figures, found = figures_of(lowered, ask.target), {}
        whole = max(one.batch for one in lowered.programs)
        weights = weights_bytes(ask.program, lowered, ask.predict_bytes)
        for micro_batch in self.micro_batches:
            batch, dynamic = max(micro_batch, whole), figures.live_bytes(micro_batch)
            static = static_bytes(ask.program, lowered, ask.sample_bytes, 0, batch, weights).total
            least = Size(static + max(dynamic, ask.decode_bytes), dynamic)
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
        table = ask.target.table_bytes(lowered)
        weights = weights_bytes(ask.program, lowered, ask.predict_bytes)
        static = static_bytes(ask.program, lowered, ask.sample_bytes, table, weights=weights)
        plan = make_plan(
            lowered, layers, static, ask.target, ask.decode_bytes, self.cap_cut, self.level.freezing
        )
        return replace(plan, predicted_seconds=self.summaries[micro_batch].seconds)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to run the adaptation."""

    family: Family
    micro_batch: int

    @property
    def least(self) -> Size:
        """A lower bound on what its plan takes."""
        return self.family.summaries[self.micro_batch].least

    @property
    def seconds(self) -> float:
        """What it is predicted to take."""
        return self.family.summaries[self.micro_batch].seconds

    def plan(self) -> Plan:
        """Place every buffer."""
        return self.family.plan(self.micro_batch)
