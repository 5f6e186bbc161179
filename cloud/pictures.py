"""Pictures of a run: the learning curve, and the step sizes as a layer x step heat map."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from .files import replace_bytes
from .losses import CROSS_ENTROPY, Loss

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#BBBBBB"
"""Okabe & Ito's palette, distinct under the common colour-vision deficiencies."""
DOTS_PER_INCH = 120


def learning_curve(history: Sequence[Mapping[str, float]], path: Path, loss: Loss = CROSS_ENTROPY) -> None:
    """Draw the metric (training; validation with its 95 % interval; the kept state) and active step sizes, if any."""
    column = {name: np.array([row[name] for row in history], float) for name in history[0]}
    unit = 100 if loss.percent else 1
    steps, metric, ci95 = (
        column["step"],
        unit * column[f"validation_{loss.metric}"],
        unit * column["validation_ci95"],
    )
    active = column.get("zero_step_sizes")
    heights = (3,) if active is None else (3, 1)
    figure = Figure(figsize=(7, 1.4 + 1.025 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    upper = panels[0]
    upper.plot(
        steps,
        unit * column[loss.metric],
        color=GREY,
        marker=".",
        label="training (mean since last validation)",
    )
    upper.plot(
        steps, metric, color=BLUE, marker="o", markersize=4, label="validation, adapted as on the device"
    )
    upper.fill_between(
        steps, metric - ci95, metric + ci95, color=BLUE, alpha=0.2, label="95 % interval", lw=0
    )
    kept = np.flatnonzero(column["kept"])
    if len(kept):
        upper.plot(steps[kept[-1]], metric[kept[-1]], "*", color=ORANGE, markersize=15, label="kept")
    upper.set_ylabel(f"query {loss.words}{' (%)' if loss.percent else ''}")
    upper.legend(loc=f"{'lower' if loss.higher_is_better else 'upper'} right", frameon=False)
    if active is not None:
        lower = panels[1]
        lower.plot(steps, 100 * (1 - active), color=GREEN, marker=".")
        lower.set_ylim(0, 105)
        lower.set_ylabel("step sizes\nnot zero (%)")
    panels[-1].set_xlabel("outer steps")
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def step_sizes(alpha: Tensor, layers: Sequence[str], path: Path) -> None:
    """Draw step sizes alpha (K, L): colour is the size, exact zeros are white, hatched and crossed."""
    values = alpha.detach().cpu().double().numpy().T
    rows, columns = values.shape
    figure = Figure(figsize=(2.8 + 0.85 * columns, 1.6 + 0.38 * rows), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("white")
    top = float(values.max()) or 1.0
    shown = axes.imshow(np.ma.masked_equal(values, 0), cmap="viridis", vmin=0, vmax=top, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        _label(axes, row, column, value, top)
    axes.set_xticks(range(columns), [str(step + 1) for step in range(columns)])
    axes.set_yticks(range(rows), list(layers))
    axes.set_xlabel("inner step")
    axes.set_title(f"step sizes, {(values == 0).mean():.0%} exactly zero (hatched)", fontsize=10)
    axes.tick_params(length=0)
    figure.colorbar(shown, ax=axes, label="step size")
    save(figure, path)


def _label(axes: Any, row: int, column: int, value: float, top: float) -> None:
    if value == 0:
        axes.add_patch(_hatched(row, column))
        return
    colour = "black" if value > 0.6 * top else "white"
    axes.text(column, row, f"{value:#.2g}", ha="center", va="center", color=colour, fontsize=8)


def _hatched(row: int, column: int) -> Any:
    return Rectangle(
        (column - 0.5, row - 0.5), 1, 1, facecolor="white", edgecolor=GREY, hatch="////", linewidth=0
    )


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, complete or not at all."""
    image = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(image, format="png", dpi=DOTS_PER_INCH)
    replace_bytes(path, image.getvalue())
