"""The budget search: of all plans that fit, the one that loses least and is predicted to be fastest.

Plans are ordered by (benefit lost by freezing, channels cut, 8-bit saved maps, 16-bit cache, predicted seconds). The
search looks at groups that lose the same in that order; within a group at candidates by predicted seconds. It looks
into a group only where one of the group's leanest candidates fits, and finds the smallest level of freezing by
bisection over the leanest candidates of the levels. What is looked at, and in which order, depends on the budgets
only through "does this candidate fit", so that whatever fits a budget also fits a larger one and is found there,
unless something better is: a larger budget never gives a worse plan. And a plan is found exactly if one of the
candidates in `Search.decisive` fits, so that the smallest budget that would do is the least of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from ..errors import UsageError
from ..lower import REFERENCE, Choice, Target
from ..lower.lowering import distinct, outline
from ..program import Program
from .candidate import Budgets, Candidate, Caps, Family, Request
from .fitting import Fitting
from .freezing import Level, Mask, Worth, levels, unfrozen
from .plan import Plan
from .space import CAP_CUTS, Fixed, Space, space_of

Bits = tuple[int, int]


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
    schedule: str | None = None,
    storage: str | None = None,
    fixed: Fixed | None = None,
    target: Target = REFERENCE,
    worth: Sequence[Worth] | None = None,
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
        schedule: use this schedule only.
        storage: use "dense" or "sparse" only.
        fixed: more dimensions that are not searched; instead of the three before.
        target: the engine that will run the plan.
        worth: per layer what updating it gives and takes; None: not known.

    Returns:
        The plan with the smallest (benefit lost, cap cut, 8-bit saved maps, 16-bit cache, predicted seconds). A
        larger budget never gives a worse plan; without a budget nothing is lost.

    Raises:
        BudgetError: nothing fits; names the smallest budget that would.
        UsageError: a count or value that cannot mean anything.
    """
    fixed = fixed or Fixed(micro_batch, schedule, storage)
    request = planning_request(
        program,
        alpha,
        samples,
        steps,
        sample_bytes=sample_bytes,
        decode_bytes=decode_bytes,
        target=target,
        worth=worth,
    )
    return Search(request, space_of(samples, fixed)).plan(Budgets(memory_budget, dynamic_budget))


def planning_request(
    program: Program,
    alpha: NDArray[Any],
    samples: int,
    steps: int,
    *,
    sample_bytes: int | None = None,
    decode_bytes: int = 0,
    target: Target = REFERENCE,
    worth: Sequence[Worth] | None = None,
) -> Request:
    """Return what has to be planned; arguments as in `search_plan`."""
    for name, count in (("samples", samples), ("steps", steps)):
        if count < 1:
            raise UsageError(f"{name}: expected 1 or more, got {count}")
    updated = updated_layers(program, alpha, steps)
    return Request(program, updated, samples, sample_bytes, decode_bytes, target, worth)


def updated_layers(program: Program, alpha: NDArray[Any], steps: int) -> tuple[Mask, ...]:
    """Return per gradient step and layer whether the step size is not zero; UsageError on a bad shape."""
    if alpha.ndim != 2 or not len(alpha) or alpha.shape[1] != len(program.layers):
        raise UsageError(f"alpha: expected shape (K, {len(program.layers)}), got {alpha.shape}")
    rows = [alpha[min(step, len(alpha) - 1)] for step in range(steps)]
    return tuple(tuple(bool(row[layer.index] != 0) for layer in program.layers) for row in rows)


class Search(Fitting[Candidate]):
    """Finds plans of one request; several budgets share what it has worked out."""

    def __init__(self, request: Request, space: Space) -> None:
        super().__init__()
        self._request = request
        self._space = space
        self._levels = [
            unfrozen(request.updated),
            *levels(request.program, request.updated, request.worth),
        ]
        self._caps: dict[int, list[dict[str, int]]] = {}
        self._families: dict[tuple[int, float, Choice], list[Candidate]] = {}

    def best(self, budgets: Budgets) -> Candidate | None:
        """See `Fitting.best`."""
        found = self._within(0, budgets)
        return self._frozen(budgets) if found is None and budgets.bounded else found

    def _any_fits(self, candidates: Iterator[Candidate], budgets: Budgets) -> bool:
        return any(self.fits(one, budgets) for one in candidates)

    def _within(self, level: int, budgets: Budgets) -> Candidate | None:
        """Return the best candidate that freezes just the layers of a level."""
        for cut in self._cuts(level):
            if cut and not self._any_fits(self._leanest(level, cut, self._space.bits()[-1]), budgets):
                continue
            for bits in self._space.bits():
                if not budgets.bounded or self._any_fits(self._leanest(level, cut, bits), budgets):
                    return self._fastest(level, cut, bits, budgets)
        return None

    def _frozen(self, budgets: Budgets) -> Candidate | None:
        """Return the best candidate of the first level that bisection finds."""
        low, high = 1, len(self._levels) - 1
        while low < high:
            middle = (low + high) // 2
            if self._any_fits(self._decisive_of(middle), budgets):
                high = middle
            else:
                low = middle + 1
        return (
            self._within(low, budgets)
            if low == high and self._any_fits(self._decisive_of(low), budgets)
            else None
        )

    def _fastest(self, level: int, cut: float, bits: Bits, budgets: Budgets) -> Candidate | None:
        """Return the candidate of a group that is predicted to be fastest."""
        choices = self._space.families(bits, self._storages(level, cut))
        every = [one for choice in choices for one in self._candidates(level, cut, choice)]
        return self.fastest(every, budgets)

    def decisive(self) -> Iterator[Candidate]:
        """See `Fitting.decisive`."""
        for bits in self._space.bits():
            yield from self._leanest(0, 0.0, bits)
        for cut in self._cuts(0)[1:]:
            yield from self._leanest(0, cut, self._space.bits()[-1])
        low, high = 1, len(self._levels) - 1
        while low < high:
            middle = (low + high) // 2
            yield from self._decisive_of(middle)
            low = middle + 1
        if low == high:
            yield from self._decisive_of(low)

    def _decisive_of(self, level: int) -> Iterator[Candidate]:
        """Yield the candidates of which one must fit for a level of freezing to be chosen."""
        bits = self._space.bits()
        yield from self._leanest(level, 0.0, bits[0])
        yield from self._leanest(level, self._cuts(level)[-1], bits[-1])

    def _leanest(self, level: int, cut: float, bits: Bits) -> Iterator[Candidate]:
        for choice in self._space.leanest(bits, self._storages(level, cut)):
            yield self._candidates(level, cut, choice)[0]

    def _candidates(self, level: int, cut: float, choice: Choice) -> list[Candidate]:
        """Return the candidates of a family by micro-batch."""
        key = (level, cut, choice)
        if key not in self._families:
            table, sizes = self._cap_table(level), self._space.micro_batches
            caps = [{name: max(1, int(cap * (1 - cut))) for name, cap in row.items()} for row in table]
            cut_caps: tuple[Caps, ...] | None = tuple(caps) if cut else None
            family = Family(self._request, self._levels[level], cut, cut_caps, choice, sizes)
            self._families[key] = [Candidate(family, size) for size in sizes]
        return self._families[key]

    def _storages(self, level: int, cut: float) -> tuple[str, ...]:
        found = self._space.storages(any(self._cap_table(level)))
        return found[-1:] if cut else found

    def _cuts(self, level: int) -> tuple[float, ...]:
        sparse = "sparse" in self._space.values["storage"] and any(self._cap_table(level))
        return CAP_CUTS if sparse else CAP_CUTS[:1]

    def _cap_table(self, level: int) -> list[dict[str, int]]:
        if level not in self._caps:
            self._caps[level] = stored_caps(self._request.program, self._levels[level])
        return self._caps[level]


def stored_caps(program: Program, level: Level) -> list[dict[str, int]]:
    """Return per gradient step the channels kept by sparse storage, by forward attention's output."""
    if not any(op.kind == "ChannelAttention" for op in program.ops()):
        return []
    keys, order = distinct(level.updated, None)
    found = [
        {
            op.inputs[1]: int(str(op.attrs["cap"]))
            for op in outline(program, mask, "sparse", {}).ordered.ops
            if op.kind == "SelectChannels"
        }
        for mask, _ in keys
    ]
    return [found[number] for number in order]
