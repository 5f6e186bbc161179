"""The plan: offsets for every buffer of a lowered program, and what the whole adaptation will need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..lower.choice import Choice
from ..lower.table import TERMS, Cache, Lowered, Segment, StepProgram
from ..lower.target import Target
from .freezing import Freezing
from .offsets import ALIGNMENT, live_bytes, plan_profiles
from .static import StaticBytes
from .work import predicted_seconds, total_macs


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
        steps: gradient steps.
        choice: how it runs.
        engine: the engine it is made for.
        threads: the threads it is made for.
        layers: per gradient step the names of the updated layers.
        macs: multiply-accumulates of the whole adaptation.
        predicted_seconds: a ranking of plans rather than a promise.
        cap_cut: share of the channels kept for weight gradients that was cut to fit the budget.
        freezing: layers that are not updated to fit the budget.
        lowered: the step programs.
        offsets: for each of `lowered.all_programs`, buffer and cache names to arena offsets.
    """

    planned_peak_bytes: int
    static_bytes: int
    dynamic_bytes: int
    terms: Mapping[str, int]
    samples: int
    steps: int
    choice: Choice
    engine: str
    threads: int
    layers: tuple[tuple[str, ...], ...]
    macs: int
    predicted_seconds: float
    cap_cut: float
    freezing: Freezing
    lowered: Lowered
    offsets: tuple[Mapping[str, int], ...]

    @property
    def micro_batch(self) -> int:
        """Samples per run of a body; see `Choice`."""
        return self.choice.micro_batch

    @property
    def schedule(self) -> str:
        """See `Choice`."""
        return self.choice.schedule

    @property
    def storage(self) -> str:
        """See `Choice`."""
        return self.choice.storage

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values, without the step table."""
        return {
            "planned_peak_bytes": self.planned_peak_bytes,
            "static_bytes": self.static_bytes,
            "dynamic_bytes": self.dynamic_bytes,
            "terms": dict(self.terms),
            "samples": self.samples,
            "steps": self.steps,
            **asdict(self.choice),
            "engine": self.engine,
            "threads": self.threads,
            "layers": [list(names) for names in self.layers],
            "macs": self.macs,
            "predicted_seconds": self.predicted_seconds,
            "cap_cut": self.cap_cut,
            "freezing": self.freezing.to_json(),
        }

    def placed(self) -> list[Placed]:
        """Return every buffer's spans in the arena and every cache, for each of `lowered.all_programs`."""
        numbered = enumerate(zip(self.lowered.all_programs, self.offsets, strict=True))
        return [
            Placed(number, name, s.term, offsets[name], s.bytes, s.first, s.last)
            for number, (program, offsets) in numbered
            for name, segments in _profiles(program, self.lowered.caches)
            for s in segments
        ]


def arena_layout(program: StepProgram, start: int = 0, enough: int = 0) -> tuple[dict[str, int], int]:
    """Return the offset of every buffer of one step program, `start` or more, and the arena it needs.

    An arena of `enough` bytes is as good as a smaller one.
    """
    profiles = [buffer.segments for buffer in program.buffers]
    layout = plan_profiles(profiles, ALIGNMENT, max(0, enough - start))
    named = zip((buffer.name for buffer in program.buffers), layout.offsets, strict=True)
    return {name: start + offset for name, offset in named}, start + layout.peak


def make_plan(
    lowered: Lowered,
    layers: Sequence[Sequence[str]],
    static: StaticBytes,
    target: Target,
    decode_bytes: int = 0,
    cap_cut: float = 0.0,
    freezing: Freezing | None = None,
) -> Plan:
    """Place every buffer and add up.

    Args:
        lowered: the step programs.
        layers: per gradient step the names of the updated layers.
        static: everything outside the arena.
        target: the engine.
        decode_bytes: what decoding the largest image takes beside the samples kept; it happens before the
            arena is touched, so the peak is the larger of the two.
        cap_cut: recorded in the plan.
        freezing: recorded in the plan; None: nothing is frozen.
    """
    cached, start = _cache_offsets(lowered)
    placed = _layouts(lowered.all_programs, start)
    dynamic = max(peak for _, peak in placed)
    biggest = max(range(len(placed)), key=lambda i: placed[i][1])
    plan = Plan(
        planned_peak_bytes=static.total + dynamic,
        static_bytes=static.total,
        dynamic_bytes=dynamic,
        terms={**static.terms(), **fullest_terms(lowered, lowered.all_programs[biggest], dynamic)},
        samples=lowered.samples,
        steps=len(lowered.order),
        choice=lowered.choice,
        engine=target.name,
        threads=target.threads,
        layers=tuple(tuple(names) for names in layers),
        macs=total_macs(lowered),
        predicted_seconds=predicted_seconds(lowered, target),
        cap_cut=cap_cut,
        freezing=freezing or Freezing(((),) * len(lowered.order)),
        lowered=lowered,
        offsets=tuple(
            {**cached, **_view_offsets(program, cached), **offsets}
            for program, (offsets, _) in zip(lowered.all_programs, placed, strict=True)
        ),
    )
    return with_decode(plan, decode_bytes)


def with_decode(plan: Plan, decode_bytes: int) -> Plan:
    """Return the plan with the price of decoding one image, which counts where it exceeds the arena."""
    if decode_bytes <= plan.planned_peak_bytes - plan.static_bytes:
        return plan
    terms = {**plan.terms, **dict.fromkeys((*TERMS, "gaps"), 0)}
    terms["input"] += plan.static_bytes + decode_bytes - sum(terms.values())
    return replace(plan, planned_peak_bytes=plan.static_bytes + decode_bytes, terms=terms)


def _profiles(program: StepProgram, caches: Iterable[Cache]) -> Iterator[tuple[str, Sequence[Segment]]]:
    """Yield name and spans of every buffer, and of every cache, which is there all the time."""
    for cache in caches:
        yield cache.name, (Segment(0, len(program.steps) - 1, cache.bytes, "saved"),)
    for buffer in program.buffers:
        yield buffer.name, buffer.segments


def _layouts(programs: Sequence[StepProgram], start: int) -> list[tuple[dict[str, int], int]]:
    """Place every step program, that with most live bytes first: the others need not do better."""
    live = [live_bytes([buffer.segments for buffer in program.buffers]) for program in programs]
    found: dict[int, tuple[dict[str, int], int]] = {}
    for number in sorted(range(len(programs)), key=lambda i: -live[i]):
        enough = max((peak for _, peak in found.values()), default=0)
        found[number] = arena_layout(programs[number], start, enough)
    return [found[number] for number in range(len(programs))]


def _cache_offsets(lowered: Lowered) -> tuple[dict[str, int], int]:
    """Return where the caches lie, one behind the other from the arena's first byte on, and where they end."""
    offsets, end = {}, 0
    for cache in lowered.caches:
        offsets[cache.name] = end
        end += -(-cache.bytes // ALIGNMENT) * ALIGNMENT
    return offsets, end


def _view_offsets(program: StepProgram, cached: Mapping[str, int]) -> dict[str, int]:
    """Return where the values lie that are a cache under another shape."""
    return {v.name: cached[v.buffer] for v in program.values.values() if v.cached and v.buffer}


def fullest_terms(lowered: Lowered, program: StepProgram, dynamic: int) -> dict[str, int]:
    """Return the live bytes by term at the step where most is live; what is left of the arena is gaps."""
    live: list[dict[str, int]] = [dict.fromkeys(TERMS, 0) for _ in program.steps]
    for _, segments in _profiles(program, lowered.caches):
        for segment in segments:
            for index in range(segment.first, segment.last + 1):
                live[index][segment.term] += segment.bytes
    fullest = max(live, key=lambda terms: sum(terms.values()))
    return {**fullest, "gaps": dynamic - sum(fullest.values())}
