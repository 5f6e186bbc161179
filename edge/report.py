"""What a run reports, and whether it kept the plan's promise."""

from __future__ import annotations

from typing import Any

from .bundle import BundleFiles
from .planning import Request
from .run import Outcome
from .units import format_bytes

TOLERANCE_BYTES = 2 << 20
FIGURES = (
    *("planned_peak_bytes", "static_bytes", "dynamic_bytes", "terms", "storage", "macs", "predicted_seconds"),
    *("cap_cut", "saved_bits", "cache_bits", "recompute", "tiling"),
)
"""Of a plan, what only an engine that follows it step by step gives."""


def run_report(files: BundleFiles, outcome: Outcome, engine: str, request: Request | None) -> dict[str, Any]:
    """Return the report of one adaptation: the plan's figures, the measured ones, the result.

    Bytes are null where they could not be measured (elsewhere than on Linux); `kept` is then null too. Planned
    figures are null where the engine does not plan.
    """
    adaptation, meter = outcome.adaptation, outcome.meter
    return {
        **_planned(outcome),
        "memory_budget_bytes": None if request is None else request.memory_budget,
        "dynamic_budget_bytes": None if request is None else request.dynamic_budget,
        "baseline_bytes": meter.baseline_bytes,
        "measured_peak_bytes": meter.peak_bytes,
        "measured_dynamic_bytes": adaptation.measured_dynamic_bytes,
        "process_peak_bytes": meter.process_peak_bytes,
        "kept": _kept(outcome),
        "seconds": adaptation.seconds,
        "steps": adaptation.steps_done,
        "support_samples": len(outcome.support),
        "support_accuracy": outcome.accuracy,
        "loss": outcome.loss,
        "losses": list(adaptation.losses),
        "classes": list(outcome.support.class_names),
        "converted": list(outcome.support.converted),
        "engine": engine,
        "bundle": {"name": files.manifest.name, "sha256": files.identity},
    }


def broken_promise(report: dict[str, Any]) -> str | None:
    """Return one line on the measured figures that exceed the planned ones, or None if none does."""
    if report["kept"] is not False:
        return None
    parts = [
        f"{what} measured {format_bytes(report[measured])}, planned {format_bytes(report[planned])}"
        for what, measured, planned, tolerance in (
            ("peak", "measured_peak_bytes", "planned_peak_bytes", TOLERANCE_BYTES),
            ("arena", "measured_dynamic_bytes", "dynamic_bytes", 0),
        )
        if (report[measured] or 0) > report[planned] + tolerance
    ]
    return f"the run took more memory than planned ({'; '.join(parts)}); the adapted model itself is right"


def _planned(outcome: Outcome) -> dict[str, Any]:
    figures = outcome.plan.to_json()
    return figures if outcome.planned else figures | dict.fromkeys(FIGURES)


def _kept(outcome: Outcome) -> bool | None:
    """Tell whether measured <= planned + 2 MiB and the same, exactly, of the arena; None if not known."""
    peak, dynamic = outcome.meter.peak_bytes, outcome.adaptation.measured_dynamic_bytes
    if not outcome.planned or (peak is None and dynamic is None):
        return None
    return (peak or 0) <= outcome.plan.planned_peak_bytes + TOLERANCE_BYTES and (
        dynamic or 0
    ) <= outcome.plan.dynamic_bytes
