"""The picture of benchmarks/lite_bias.py: RMSE over |H|, one panel per learner (after the paper's figure)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STYLES = {
    "LITE, uniform": ("#0072B2", "o", "--"),
    "LITE, stratified": ("#0072B2", "s", "-"),
    "sub-sampled, uniform": ("#D55E00", "o", "--"),
    "sub-sampled, stratified": ("#D55E00", "s", "-"),
}
DOTS_PER_INCH = 120
TICKS = (0.1, 0.3, 1, 3)

Row = dict[str, Any]


def draw_rmse(rows: Sequence[Row], path: Path) -> None:
    """Draw the RMSE of every estimator with its 95 % interval; PNG, complete or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = [row for row in rows if row["measure"] == "rmse"]
    panels = list(dict.fromkeys(row["learner"] for row in rows))
    figure = Figure(figsize=(3.4 * len(panels), 3.6), layout="constrained")
    for index, (axes, name) in enumerate(
        zip(figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True)
    ):
        _panel(axes, [row for row in found if row["learner"] == name], name)
        if index == 0:
            axes.set_ylabel("RMSE / norm of the exact gradient")
        if name == panels[-1]:
            axes.legend(frameon=False, fontsize=8, loc="lower left")
    partial = path.with_name(path.name + ".partial")
    FigureCanvasAgg(figure).print_figure(partial, format="png", dpi=DOTS_PER_INCH)
    os.replace(partial, path)


def _panel(axes: Any, rows: Sequence[Row], title: str) -> None:
    for estimator, (colour, marker, line) in STYLES.items():
        own = sorted((row for row in rows if row["estimator"] == estimator), key=lambda row: int(row["h"]))
        axes.errorbar(
            [row["h"] for row in own],
            [row["value"] for row in own],
            yerr=[row["ci95"] for row in own],
            color=colour,
            marker=marker,
            linestyle=line,
            markersize=5,
            linewidth=1.2,
            capsize=3,
            label=estimator,
        )
    sizes = sorted({row["h"] for row in rows})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_yticks(TICKS, [str(tick) for tick in TICKS])
    axes.minorticks_off()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(f"|H| of {rows[0]['n_support']} support samples")
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
