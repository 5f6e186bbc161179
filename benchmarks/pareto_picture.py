"""The picture of benchmarks/pareto.py, and its verdict: which penalty is best at equal planned budgets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHARES = (0.3, 0.45, 0.6, 0.75)
"""Budgets, as shares of the dense plan's arena; chosen before any run."""
PENALTIES = {
    "activations": ("#0072B2", "o"),
    "activations+gradients": ("#D55E00", "s"),
    "peak": ("#009E73", "^"),
}
LEFT_OF_POINTS = ("activations",)
"""Penalties whose labels go there; those of the others to the right, so that runs of one arena stay readable."""
DOTS_PER_INCH = 120

Row = dict[str, Any]


def budgets(rows: Sequence[Row]) -> list[int]:
    """Return the budgets in bytes."""
    dense = next(row["planned_dynamic_bytes"] for row in rows if row["penalty"] == "none")
    return [int(share * dense) for share in SHARES]


def best_within(rows: Sequence[Row], penalty: str, budget: int) -> Row | None:
    """Return a penalty's most accurate run whose arena is within a budget; None if it has no such run."""
    within = [row for row in rows if row["penalty"] == penalty and row["planned_dynamic_bytes"] <= budget]
    return max(within, key=lambda row: row["accuracy"], default=None)


def not_below(other: Row | None, paper: Row | None) -> bool:
    """Whether a run is not below the paper's cost by more than the larger interval of the two; both must be there."""
    if other is None or paper is None:
        return False
    return bool(other["accuracy"] >= paper["accuracy"] - max(other["ci95"], paper["ci95"]))


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy over planned arena with 95 % intervals, one line per penalty; PNG, complete or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, budget in enumerate(budgets(rows)):
        axes.axvline(
            budget / 1e3, color="#CCCCCC", linewidth=1, zorder=0, label="_" * index + "budgets compared"
        )
    for penalty, (colour, marker) in PENALTIES.items():
        _draw_line(axes, [row for row in rows if row["penalty"] == penalty], colour, marker, penalty)
    dense = [row for row in rows if row["penalty"] == "none"]
    _draw_line(axes, dense, "black", "*", "dense (no penalty)")
    axes.set_xlabel("planned arena of the most frugal plan (kB)")
    axes.set_ylabel("accuracy on new alphabets (%)")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    partial = path.with_name(path.name + ".partial")
    FigureCanvasAgg(figure).print_figure(partial, format="png", dpi=DOTS_PER_INCH)
    os.replace(partial, path)


def _draw_line(axes: Any, rows: Sequence[Row], colour: str, marker: str, label: str) -> None:
    ordered = sorted(rows, key=lambda row: (row["planned_dynamic_bytes"], row["accuracy"]))
    x = [row["planned_dynamic_bytes"] / 1e3 for row in ordered]
    y = [100 * row["accuracy"] for row in ordered]
    axes.errorbar(
        x,
        y,
        yerr=[100 * row["ci95"] for row in ordered],
        color=colour,
        marker=marker,
        markersize=10 if marker == "*" else 6,
        linewidth=1,
        capsize=3,
        label=label,
    )
    for index, row in enumerate(ordered):
        if row["penalty"] != "none":
            above = index > 0 and x[index - 1] == x[index]
            _label(axes, row, (x[index], y[index]), colour, above)


def _label(axes: Any, row: Row, at: tuple[float, float], colour: str, above: bool) -> None:
    """Write a penalty's strength, or its target, beside its point: above it where another lies below, else below."""
    left = row["penalty"] in LEFT_OF_POINTS
    axes.annotate(
        f"{row['value']:g}",
        at,
        (-6 if left else 6, 4 if above else -10),
        textcoords="offset points",
        horizontalalignment="right" if left else "left",
        fontsize=7,
        color=colour,
    )
