"""The budget search: of all plans that fit, the one that cuts nothing and is predicted to be fastest."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..program import Program
from .plan import Plan


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
    raise NotImplementedError
