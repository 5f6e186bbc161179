"""The picture of benchmarks/lite_bias.py: RMSE over |H| by data set and learner (after the paper's figure)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLOURS = {"LITE": "#0072B2", "LITE with control variate": "#009E73", "sub-sampled": "#D55E00"}
KINDS = {"uniform": ("o", "--"), "stratified": ("s", "-")}
DOTS_PER_INCH = 120
TICKS = (0.1, 0.3, 1, 3)

Row = dict[str, Any]


def draw_rmse(rows: Sequence[Row], path: Path) -> None:
    """Draw every estimator's RMSE, mean over tasks, with its 95 % interval; PNG, complete or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = [row for row in rows if row["measure"] == "rmse"]
    data, learners = (list(dict.fromkeys(row[name] for row in found)) for name in ("data", "learner"))
    figure = Figure(figsize=(3.4 * len(learners), 3.0 * len(data) + 0.6), layout="constrained")
    grid = figure.subplots(len(data), len(learners), squeeze=False, sharey=True, sharex=True)
    for line, name in zip(grid, data, strict=True):
        line[0].set_ylabel(f"{name}\nRMSE / norm of the exact gradient")
        for axes, learner in zip(line, learners, strict=True):
            _panel(axes, [row for row in found if (row["data"], row["learner"]) == (name, learner)])
    for axes, learner in zip(grid[0], learners, strict=True):
        axes.set_title(learner, fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel(f"|H| of {found[0]['n_support']} support samples")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    partial = path.with_name(path.name + ".partial")
    FigureCanvasAgg(figure).print_figure(partial, format="png", dpi=DOTS_PER_INCH)
    os.replace(partial, path)


def _panel(axes: Any, rows: Sequence[Row]) -> None:
    sizes = sorted({row["h"] for row in rows})
    for estimator, colour in COLOURS.items():
        for kind, (marker, line) in KINDS.items():
            name = f"{estimator}, {kind}"
            own = [[row for row in rows if (row["estimator"], row["h"]) == (name, h)] for h in sizes]
            axes.errorbar(
                sizes,
                [sum(row["value"] for row in tasks) / len(tasks) for tasks in own],
                yerr=[math.hypot(*(row["ci95"] for row in tasks)) / len(tasks) for tasks in own],
                color=colour,
                marker=marker,
                linestyle=line,
                markersize=5,
                linewidth=1.2,
                capsize=3,
                label=name,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_yticks(TICKS, [str(tick) for tick in TICKS])
    axes.minorticks_off()
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
