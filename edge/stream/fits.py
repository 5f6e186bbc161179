"""Whether a plan that was made elsewhere is one of a bundle's stream."""

from __future__ import annotations

from itertools import zip_longest

from ..lower.choice import STREAM
from ..plan import Plan
from .beside import Reading
from .passes import Passes
from .search import Family


def misfit(passes: Passes, plan: Plan) -> str:
    """Return the first thing in which a plan differs from one of these passes; "" where there is none.

    Args:
        passes: of the bundle.
        plan: any plan for the same engine.
    """
    if plan.choice.schedule != STREAM:
        return "its schedule"
    reading = Reading(plan.samples, passes.streams.classes, 0, 0.0)
    right = Family(passes, reading, plan.choice.tiling).plan(plan.choice.micro_batch)
    names = (f"its pass {one.name!r}" for one in passes.every)
    for name, *programs in zip_longest(names, right.lowered.programs, plan.lowered.programs, fillvalue=None):
        if programs[0] != programs[1]:
            return name or "how many passes it has"
    kept = (one.lowered.caches for one in (right, plan))
    if len({*kept}) > 1 or right.dynamic_bytes != plan.dynamic_bytes:
        return "what computing the head takes"
    return "" if right.terms["weights"] == plan.terms["weights"] else "its weights"
