"""A picture of the frontier: what the memory budget buys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..lower.choice import FLOAT_BITS
from .frontier import frontier_row
from .picture import figure_of, save_picture
from .plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = (7.0, 2.3)
COLOURS = {
    "32 bits": "#0072B2",
    "fewer bits": "#E69F00",
    "fewer channels": "#CC79A7",
    "layers frozen": "#D55E00",
}
PANELS = {
    "predicted_seconds": "predicted seconds",
    "macs": "MACs",
    "benefit_kept": "benefit kept",
}


def draw_frontier(plans: Sequence[Plan], path: Path) -> None:
    """Draw seconds, MACs and benefit kept over the planned peak into `path`; PNG, PDF or SVG by suffix.

    Without benefits the share of layer updates that is kept takes their place.

    Raises:
        UsageError: matplotlib is not installed, or it does not know the suffix.
    """
    figure = figure_of(PANEL_INCHES[0], PANEL_INCHES[1] * len(PANELS))
    rows = [frontier_row(plan) for plan in plans]
    known = rows[0]["benefit_kept"] is not None and rows[-1]["benefit_kept"] is not None
    panels = figure.subplots(len(PANELS), sharex=True)
    for axes, (key, label) in zip(panels, PANELS.items(), strict=True):
        values = [row[key] for row in rows]
        if key == "benefit_kept" and not known:
            values, label = [_updates_kept(plan) for plan in plans], "layer updates kept"
        _draw_panel(axes, plans, values)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
    panels[0].legend(
        fontsize=7, frameon=False, ncols=len(COLOURS), loc="lower center", bbox_to_anchor=(0.5, 1.0)
    )
    panels[-1].set_xlabel("planned peak (MB)")
    save_picture(figure, path)


def _draw_panel(axes: Axes, plans: Sequence[Plan], values: Sequence[float]) -> None:
    megabytes = [plan.planned_peak_bytes / 1e6 for plan in plans]
    order = sorted(range(len(plans)), key=megabytes.__getitem__)
    axes.step(
        [megabytes[i] for i in order],
        [values[i] for i in order],
        where="post",
        color="#999999",
        linewidth=0.8,
    )
    for loss, colour in COLOURS.items():
        chosen = [i for i in order if _loss(plans[i]) == loss]
        if not chosen:
            continue
        axes.plot(
            [megabytes[i] for i in chosen],
            [values[i] for i in chosen],
            "o",
            color=colour,
            markersize=4,
            label=loss,
        )
    if megabytes[order[-1]] > 10 * megabytes[order[0]]:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3, which="both", linewidth=0.4)


def _loss(plan: Plan) -> str:
    """Return the worst that a plan does to fit."""
    if any(plan.freezing.layers):
        return "layers frozen"
    if plan.cap_cut:
        return "fewer channels"
    bits = min(plan.choice.saved_bits, plan.choice.cache_bits)
    return "32 bits" if bits == FLOAT_BITS else "fewer bits"


def _updates_kept(plan: Plan) -> float:
    kept, frozen = (sum(map(len, steps)) for steps in (plan.layers, plan.freezing.layers))
    return kept / max(1, kept + frozen)
