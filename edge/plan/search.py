"""The budget search: of all plans that fit, the one that cuts nothing and is predicted to be fastest.

A candidate is (cap cut, storage, micro-batch). Of micro-batches that need the same number of passes only
the smallest matters. Candidates are ranked before anything is placed; the first that fits both budgets
is taken, so a larger budget never gives a slower plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from ..errors import BudgetError, UsageError
from ..lower import REFERENCE, Choice, Lowered, Target
from ..lower.choice import STORAGES
from ..program import Program
from ..units import format_bytes
from .candidate import Budgets, Candidate, Mask, Request, Summary
from .plan import Plan

CAP_CUTS = (0.0, 0.25, 0.5, 0.75)


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
    target: Target = REFERENCE,
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
        target: the engine that will run the plan.

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
    request = Request(program, updated, samples, sample_bytes, decode_bytes, target)
    sizes = [min(micro_batch, samples)] if micro_batch else micro_batches(samples)
    budgets = Budgets(memory_budget, dynamic_budget)
    tried: list[Candidate] = []
    for group in _candidates(request, sizes, STORAGES if storage is None else (storage,)):
        tried += group
        for candidate in sorted(group, key=lambda one: one.rank):
            plan = candidate.plan_within(budgets)
            if plan is not None:
                return plan
    raise _refusal(tried, budgets)


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
        first = Candidate(request, Choice(sizes[0], storage=storage), 0.0, None)
        if storage == "sparse":
            cap_table = stored_caps(first.lowered())
            if not any(cap_table) and len(storages) > 1:
                continue
        uncut += [Candidate(request, Choice(size, storage=storage), 0.0, None) for size in sizes]
    yield uncut
    for cut in CAP_CUTS[1:]:
        caps = tuple({name: max(1, int(cap * (1 - cut))) for name, cap in row.items()} for row in cap_table)
        if any(caps):
            yield [Candidate(request, Choice(size, storage="sparse"), cut, caps) for size in sizes]


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


def _refusal(tried: Sequence[Candidate], budgets: Budgets) -> BudgetError:
    """Return the error that names the smallest budget that would do."""
    in_arena = tried
    if budgets.dynamic is not None:
        in_arena = [one for one in tried if one.plan_within(Budgets(None, budgets.dynamic))]
    if in_arena:
        what, budget = "memory", budgets.memory
        smallest = _smallest(in_arena, lambda s: s.least_peak_bytes, lambda p: p.planned_peak_bytes)
    else:
        what, budget = "dynamic", budgets.dynamic
        smallest = _smallest(tried, lambda s: s.least_dynamic_bytes, lambda p: p.dynamic_bytes)
    return BudgetError(
        f"no plan fits a {what} budget of {budget} bytes ({format_bytes(budget or 0)}): the smallest feasible"
        f" is {smallest} bytes ({format_bytes(smallest)}); raise the budget or plan fewer samples",
        smallest,
    )


def _smallest(
    candidates: Sequence[Candidate], least: Callable[[Summary], int], figure: Callable[[Plan], int]
) -> int:
    """Return the smallest `figure` of any plan; places only candidates whose lower bound is smaller still."""
    first, *others = sorted(candidates, key=lambda one: least(one.summary))
    best = figure(first.plan())
    for one in others:
        if least(one.summary) >= best:
            break
        best = min(best, figure(one.plan()))
    return best
