"""The budget search of a stream: of all micro-batches and ways to tile that fit, the one predicted to be fastest.

The order of the candidates does not depend on the budgets: a larger budget never gives a slower plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..lower.choice import TILINGS
from ..lower.table import TERMS, Lowered
from ..plan.candidate import Budgets, Size
from ..plan.figures import Figures, figures_of
from ..plan.fitting import Fitting
from ..plan.freezing import Freezing
from ..plan.offsets import ALIGNMENT
from ..plan.plan import Plan, arena_layout, fullest_terms
from ..plan.static import StaticBytes
from ..plan.work import DIGITS, program_macs
from .beside import Reading, beside_macs, beside_seconds
from .passes import KEPT, Passes

MOST_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Family:
    """Candidates that differ only in their micro-batch.

    Attributes:
        passes: what is run.
        reading: the support set.
        tiling: as in `Choice`.
    """

    passes: Passes
    reading: Reading
    tiling: str

    @cached_property
    def figures(self) -> Figures:
        """What one lowering tells about all micro-batches."""
        return figures_of(self.passes.large_ones(self.reading.samples, self.tiling), self.passes.target)

    def seconds(self, micro_batch: int) -> float:
        """Return the predicted time of everything."""
        return round(self.figures.seconds(micro_batch) + beside_seconds(self.passes, self.reading), DIGITS)

    def plan(self, micro_batch: int) -> Plan:
        """Place every buffer."""
        passes = self.passes
        lowered = passes.lowered(self.reading.samples, micro_batch, self.tiling)
        start = -(-passes.kept_bytes // ALIGNMENT) * ALIGNMENT
        placed = [arena_layout(program, start) for program in lowered.programs]
        predict = arena_layout(passes.predict)[1]
        dynamic = max(start + passes.finish_bytes, predict, *(peak for _, peak in placed))
        table = passes.target.table_bytes(lowered)
        static = StaticBytes(passes.weights_bytes, table, 0, self.reading.bytes)
        return Plan(
            planned_peak_bytes=static.total + dynamic,
            static_bytes=static.total,
            dynamic_bytes=dynamic,
            terms={**static.terms(), **self._terms(lowered, [peak for _, peak in placed], dynamic)},
            samples=self.reading.samples,
            steps=1,
            choice=lowered.choice,
            engine=passes.target.name,
            threads=passes.target.threads,
            layers=(tuple(layer.name for layer in passes.streams.main.layers),),
            macs=self._macs(lowered),
            predicted_seconds=self.seconds(micro_batch),
            cap_cut=0.0,
            freezing=Freezing(((),)),
            lowered=lowered,
            offsets=tuple({KEPT: 0, **offsets} for offsets, _ in placed),
        )

    def _terms(self, lowered: Lowered, peaks: list[int], dynamic: int) -> dict[str, int]:
        """Return the bytes by term where most is live: in a pass, or where the head is computed."""
        if dynamic == max(peaks):
            return fullest_terms(lowered, lowered.programs[peaks.index(dynamic)], dynamic)
        terms = {**dict.fromkeys(TERMS, 0), "saved": self.passes.kept_bytes}
        terms["workspace"] = self.passes.finish_bytes
        return {**terms, "gaps": dynamic - sum(terms.values())}

    def _macs(self, lowered: Lowered) -> int:
        """Return the multiply-accumulates of everything but what scores the result."""
        programs = zip(self.passes.every, lowered.programs, strict=True)
        each = sum(program_macs(program) for one, program in programs if one.streams)
        return self.reading.samples * each + beside_macs(self.passes, self.reading)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to run the stream."""

    family: Family
    micro_batch: int

    @property
    def least(self) -> Size:
        """A lower bound on what its plan takes."""
        dynamic = self.family.figures.live_bytes(self.micro_batch)
        return Size(self.family.passes.weights_bytes + self.family.reading.bytes + dynamic, dynamic)

    @property
    def seconds(self) -> float:
        """What it is predicted to take."""
        return self.family.seconds(self.micro_batch)

    def plan(self) -> Plan:
        """Place every buffer."""
        return self.family.plan(self.micro_batch)


class StreamSearch(Fitting[Candidate]):
    """Finds plans of one stream."""

    advice = "choose a smaller network"

    def __init__(self, passes: Passes, reading: Reading) -> None:
        """Take what is run, and what on."""
        super().__init__()
        samples = reading.samples
        families = [Family(passes, reading, tiling) for tiling in TILINGS]
        few = range(1, MOST_AT_ONCE + 1)
        sizes = [size for size in few if -(-samples // -(-samples // size)) == size]
        self._every = [Candidate(family, size) for family in families for size in sizes]

    def best(self, budgets: Budgets) -> Candidate | None:
        """See `Fitting.best`."""
        return self.fastest(self._every, budgets)

    def decisive(self) -> Iterator[Candidate]:
        """See `Fitting.decisive`."""
        yield from self._every
