"""The budget search: of all plans that fit, the one that cuts nothing and is predicted to be fastest.

A candidate is (cap cut, storage, micro-batch). Of micro-batches that need the same number of passes only
the smallest matters. Candidates are ranked before anything is placed; the first that fits both budgets
is taken, so a larger budget never gives a slower plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from ..errors import BudgetError, UsageError
from ..lower import Lowered, lower
from ..lower.lowering import STORAGES
from ..program import Program
from ..units import format_bytes
from .offsets import live_bytes
from .plan import Plan, make_plan
from .static import StaticBytes, static_bytes
from .work import predicted_seconds

CAP_CUTS = (0.0, 0.25, 0.5, 0.75)
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


@dataclass(frozen=True)
class Candidate:
    """One way to run the adaptation, not placed yet; `caps` are those of the cut, per gradient step."""

    request: Request
    storage: str
    micro_batch: int
    cap_cut: float
    caps: tuple[Caps, ...] | None

    @cached_property
    def lowered(self) -> Lowered:
        """The step programs."""
        ask = self.request
        return lower(ask.program, ask.updated, ask.samples, self.micro_batch, self.storage, self.caps)

    @cached_property
    def static(self) -> StaticBytes:
        """Memory outside the arena."""
        return static_bytes(self.request.program, self.lowered, self.request.sample_bytes)

    @cached_property
    def rank(self) -> tuple[float, float]:
        """What the search minimises."""
        return self.cap_cut, predicted_seconds(self.lowered)

    @cached_property
    def least_dynamic_bytes(self) -> int:
        """A lower bound on the arena, before placing anything."""
        return max(live_bytes([b.segments for b in one.buffers]) for one in self.lowered.programs)

    @cached_property
    def plan(self) -> Plan:
        """The candidate with every buffer placed."""
        ask = self.request
        layers = [
            [layer.name for layer, on in zip(ask.program.layers, mask, strict=True) if on]
            for mask in ask.updated
        ]
        return make_plan(self.lowered, layers, self.static, ask.decode_bytes, self.cap_cut)

    def least(self, memory: bool) -> int:
        """Return a lower bound on the planned peak (`memory`) or on the arena."""
        if not memory:
            return self.least_dynamic_bytes
        return self.static.total + max(self.least_dynamic_bytes, self.request.decode_bytes)

    def planned(self, memory: bool) -> int:
        """Return the planned peak (`memory`) or the arena."""
        return self.plan.planned_peak_bytes if memory else self.plan.dynamic_bytes

    def fits(self, budget: int | None, memory: bool) -> bool:
        """Whether the planned peak (`memory`) or the arena is within a budget."""
        return budget is None or (self.least(memory) <= budget and self.planned(memory) <= budget)


def search_plan(
    program: Program,
    alpha: NDArray[Any],
    samples: int,
    steps: int,
    memory_budget: int | None = None,
    dynamic_budget: int | None = None,
    *,
    sample_bytes: int | None = None,
    decode_bytes: int = 0,
    micro_batch: int | None = None,
    storage: str | None = None,
) -> Plan:
    """Plan `steps` gradient steps on `samples` support samples within both budgets.

    Args:
        program: the bundle's program.
        alpha: step sizes, [K, L]; a layer is updated in step k where alpha[k, l] != 0. Steps beyond K reuse
            the last row.
        samples: support samples.
        steps: gradient steps.
        memory_budget: bound on the planned peak, in bytes; None: no bound.
        dynamic_budget: bound on the arena, in bytes; None: no bound.
        sample_bytes: what one kept sample takes; by default one byte per input element (uint8 pixels).
        decode_bytes: what decoding the largest image takes beside the samples kept.
        micro_batch: use this micro-batch only.
        storage: use "dense" or "sparse" only.

    Returns:
        The plan with the smallest (cap cut, predicted seconds). A larger budget never gives a slower plan.

    Raises:
        BudgetError: nothing fits; names the smallest budget that would.
        UsageError: a count that cannot mean anything.
    """
    for name, count in (("samples", samples), ("steps", steps), ("micro_batch", micro_batch)):
        if count is not None and count < 1:
            raise UsageError(f"{name}: expected 1 or more, got {count}")
    if storage not in (None, *STORAGES):
        raise UsageError(f"storage: expected one of {', '.join(STORAGES)}, got {storage!r}")
    updated = updated_layers(program, alpha, steps)
    request = Request(program, updated, samples, sample_bytes, decode_bytes)
    sizes = [min(micro_batch, samples)] if micro_batch else micro_batches(samples)
    tried: list[Candidate] = []
    for group in _candidates(request, sizes, STORAGES if storage is None else (storage,)):
        for candidate in sorted(group, key=lambda one: one.rank):
            tried.append(candidate)
            if candidate.fits(dynamic_budget, memory=False) and candidate.fits(memory_budget, memory=True):
                return candidate.plan
    raise _refusal(tried, memory_budget, dynamic_budget)


def updated_layers(program: Program, alpha: NDArray[Any], steps: int) -> tuple[Mask, ...]:
    """Return per gradient step and layer whether the step size is not zero; UsageError on a bad shape."""
    if alpha.ndim != 2 or not len(alpha) or alpha.shape[1] != len(program.layers):
        raise UsageError(f"alpha: expected shape (K, {len(program.layers)}), got {alpha.shape}")
    rows = [alpha[min(step, len(alpha) - 1)] for step in range(steps)]
    return tuple(tuple(bool(row[layer.index] != 0) for layer in program.layers) for row in rows)


def micro_batches(samples: int) -> list[int]:
    """Return for every possible number of passes the smallest micro-batch that needs no more."""
    return sorted({-(-samples // passes) for passes in range(1, samples + 1)})


def _candidates(request: Request, sizes: Sequence[int], storages: Sequence[str]) -> Iterator[list[Candidate]]:
    """Yield the candidates of every cap cut, the uncut ones first."""
    cap_table: list[dict[str, int]] = []
    uncut = []
    for storage in storages:
        first = Candidate(request, storage, sizes[0], 0.0, None)
        if storage == "sparse":
            cap_table = stored_caps(first.lowered)
            if not any(cap_table) and len(storages) > 1:
                continue
        uncut += [Candidate(request, storage, size, 0.0, None) for size in sizes]
    yield uncut
    for cut in CAP_CUTS[1:]:
        caps = tuple({name: max(1, int(cap * (1 - cut))) for name, cap in row.items()} for row in cap_table)
        if any(caps):
            yield [Candidate(request, "sparse", size, cut, caps) for size in sizes]


def stored_caps(lowered: Lowered) -> list[dict[str, int]]:
    """Return per gradient step the channels kept by sparse storage, by forward attention's output."""
    return [
        {
            step.inputs[1]: int(str(step.attrs["cap"]))
            for step in lowered.programs[number].steps
            if step.kind == "SelectChannels"
        }
        for number in lowered.order
    ]


def _refusal(
    tried: Sequence[Candidate], memory_budget: int | None, dynamic_budget: int | None
) -> BudgetError:
    """Return the error that names the smallest budget that would do."""
    in_arena = [one for one in tried if one.fits(dynamic_budget, memory=False)]
    memory = bool(in_arena)
    smallest = _smallest(in_arena or tried, memory)
    what, budget = ("memory", memory_budget) if memory else ("dynamic", dynamic_budget)
    return BudgetError(
        f"no plan fits a {what} budget of {budget} bytes ({format_bytes(budget or 0)}): the smallest feasible"
        f" is {smallest} bytes ({format_bytes(smallest)}); raise the budget or plan fewer samples",
        smallest,
    )


def _smallest(candidates: Sequence[Candidate], memory: bool) -> int:
    """Return the smallest planned peak (or arena); places only what could be the smallest."""
    best: int | None = None
    for one in sorted(candidates, key=lambda one: one.least(memory)):
        if best is not None and one.least(memory) >= best:
            break
        planned = one.planned(memory)
        best = planned if best is None else min(best, planned)
    assert best is not None
    return best
