"""The frontier: what every byte of budget buys, from the plan without one down to the smallest that is possible."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import BudgetError
from .candidate import Budgets
from .fitting import Fitting
from .plan import Plan


def frontier(search: Fitting[Any], budgets: Budgets) -> list[Plan]:
    """Return one plan for every budget that gives another one, the roomiest first.

    Args:
        search: what is planned.
        budgets: where to start; only the bound on the planned peak is tightened, or that on the arena where it is
            the only one.

    Raises:
        BudgetError: nothing fits the first budgets.
    """
    found = [search.plan(budgets)]
    arena_only = budgets.memory is None and budgets.dynamic is not None
    while True:
        last = found[-1]
        if arena_only:
            budgets = replace(budgets, dynamic=last.dynamic_bytes - 1)
        else:
            budgets = replace(budgets, memory=last.planned_peak_bytes - 1)
        try:
            found.append(search.plan(budgets))
        except BudgetError:
            return found


def frontier_row(plan: Plan) -> dict[str, Any]:
    """Return what the frontier shows of a plan; `benefit_kept` is None where the bundle knows no benefits."""
    lost, choice = plan.freezing.benefit_lost, plan.choice
    return {
        "planned_peak_bytes": plan.planned_peak_bytes,
        "dynamic_bytes": plan.dynamic_bytes,
        "predicted_seconds": plan.predicted_seconds,
        "macs": plan.macs,
        "benefit_kept": None if lost is None else 1 - lost,
        "frozen_layers": len({name for step in plan.freezing.layers for name in step}),
        "cap_cut": plan.cap_cut,
        "schedule": choice.schedule,
        "storage": choice.storage,
        "saved_bits": choice.saved_bits,
        "cache_bits": choice.cache_bits,
        "micro_batch": choice.micro_batch,
        "recompute": choice.recompute,
        "tiling": choice.tiling,
    }
