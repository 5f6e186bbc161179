"""How a plan runs, in one line for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHAINS = {
    "maps": "",
    "norms": "norms in tiles",
    "convs": "norms and convolutions in tiles",
    "lean": "norms and convolutions in tiles, little workspace",
}


def how(plan: Mapping[str, Any]) -> str:
    """Return what `Plan.to_json` or a run's report says of schedule, micro-batch, storage, bits and engine."""
    parts = [
        f"engine {plan['engine']} ({_count(plan['threads'], 'thread')})",
        f"{plan['samples']} samples {plan['micro_batch']} at a time",
        f"schedule {plan['schedule']}",
    ]
    if plan["schedule"] != "stream":
        parts += [f"{plan['storage']} storage", f"kept maps in {plan['saved_bits']} bits"]
    if plan["schedule"] == "cached suffix":
        parts.append(f"cached maps in {plan['cache_bits']} bits")
    if plan["recompute"]:
        parts.append("cheap values computed again")
    if CHAINS[plan["tiling"]]:
        parts.append(CHAINS[plan["tiling"]])
    if plan["cap_cut"]:
        parts.append(f"{plan['cap_cut']:.0%} fewer channels kept")
    frozen = {name for names in plan["freezing"]["layers"] for name in names}
    if frozen:
        parts.append(f"{_count(len(frozen), 'layer')} frozen to fit ({plan['freezing']['reason']})")
    return ", ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
