"""Figure 5 of p-Meta for a run: updating ratios by layer and step, similarity of scores between samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..pictures import BLUE, GREY, ORANGE, save
from .figures import Selection, Spread


def selection_picture(found: Selection, path: Path) -> None:
    """One panel per step with mean and standard deviation over samples by layer, and one with the similarity."""
    steps, count = len(found.ratios), len(found.layers)
    width = 1.2 + 0.14 * max(count, 9)
    figure = Figure(figsize=(width * (steps + 1) + 0.6, 3.2), layout="constrained")
    panels = figure.subplots(1, steps + 1)
    for step, (axes, row) in enumerate(zip(panels, found.ratios, strict=False), start=1):
        _bars(axes, row, found.layers, BLUE)
        axes.set_title(f"step {step}", fontsize=10)
    panels[0].set_ylabel("share of a weight that is updated")
    _bars(panels[-1], found.similarity, found.layers, ORANGE)
    panels[-1].set_title("step 1", fontsize=10)
    panels[-1].set_ylabel("cosine of two samples' scores")
    figure.supxlabel(
        f"{found.tasks} tasks; black: standard deviation over samples; grey cross: nothing to compare",
        fontsize=9,
    )
    save(figure, path)


def _bars(axes: Any, row: Sequence[Spread | None], names: Sequence[str], colour: str) -> None:
    """One bar for each layer, in the order of execution."""
    known = [(number, value) for number, value in enumerate(row, start=1) if value is not None]
    numbers, means, deviations = (
        np.array([number for number, _ in known]),
        np.array([value.mean for _, value in known]),
        np.array([value.std for _, value in known]),
    )
    axes.bar(
        numbers, means, color=colour, width=0.7, yerr=deviations, error_kw={"ecolor": "black", "lw": 0.8}
    )
    missing = [number for number, value in enumerate(row, start=1) if value is None]
    axes.plot(missing, np.zeros(len(missing)), "x", color=GREY)
    axes.set_xlim(0.3, len(row) + 0.7)
    axes.set_ylim(min(0.0, float((means - deviations).min(initial=0.0))), 1.05)
    axes.set_xticks(range(1, len(row) + 1), names, rotation=90, fontsize=8)
    axes.grid(alpha=0.3, axis="y")
    axes.spines[["top", "right"]].set_visible(False)
