"""A picture of the arena: offset over time, coloured by term."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..lower.choice import STREAM
from ..lower.table import TERMS
from ..writing import writing
from .plan import Placed, Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "saved": "#0072B2",
    "masks": "#56B4E9",
    "accumulators": "#009E73",
    "workspace": "#D55E00",
    "working": "#BBBBBB",
}
PANEL_INCHES = (9.0, 3.2)


def draw_arena(plan: Plan, path: Path) -> None:
    """Draw one panel per distinct step program into `path`, whole or not at all; PNG, PDF or SVG by suffix.

    What is computed once has a panel of its own.

    Raises:
        UsageError: matplotlib is not installed, or it does not know the suffix.
    """
    panels = len(plan.lowered.all_programs)
    figure = figure_of(PANEL_INCHES[0], PANEL_INCHES[1] * panels)
    placed = plan.placed()
    for number, axes in enumerate(figure.subplots(panels, squeeze=False)[:, 0]):
        _draw_panel(axes, [item for item in placed if item.program == number], plan, number)
    save_picture(figure, path)


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches; UsageError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "a picture needs matplotlib, which is not installed: pip install matplotlib"
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all.

    Raises:
        UsageError: it has no suffix, or matplotlib does not know it.
        EdgeAdaptError: it cannot be written.
    """
    if not path.suffix:
        raise UsageError(f"{path}: what kind of picture? Give the name a suffix, such as .png")
    partial = path.with_name(f".partial-{path.name}")
    try:
        with writing(path):
            figure.savefig(partial, dpi=150)
            os.replace(partial, path)
    except ValueError as error:
        raise UsageError(f"{path}: {str(error).splitlines()[0]}") from None
    finally:
        with suppress(OSError):
            partial.unlink()


def _draw_panel(axes: Axes, placed: Sequence[Placed], plan: Plan, number: int) -> None:
    for term in TERMS:
        items = [item for item in placed if item.term == term]
        axes.bar(
            [item.first for item in items],
            [item.bytes / 1e3 for item in items],
            [item.last - item.first + 1 for item in items],
            [item.offset / 1e3 for item in items],
            align="edge",
            color=COLOURS[term],
            edgecolor="white",
            linewidth=0.2,
            label=term,
        )
    axes.axhline(plan.dynamic_bytes / 1e3, color="black", linewidth=0.8, linestyle="--")
    program = plan.lowered.all_programs[number]
    axes.set_title(
        f"{_part(plan, number)}: arena of {plan.dynamic_bytes} B, {program.batch} of {plan.samples} samples at a time",
        fontsize=9,
    )
    axes.set_xlabel("operation")
    axes.set_ylabel("offset (kB)")
    axes.set_xlim(0, len(program.steps))
    axes.legend(fontsize=7, ncols=len(TERMS), loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)


def _part(plan: Plan, number: int) -> str:
    """Return which part of the adaptation a step program is."""
    if plan.schedule == STREAM:
        return f"pass {number + 1}"
    once = plan.lowered.prefix is not None
    if number < once:
        return "once"
    steps = [str(step + 1) for step, used in enumerate(plan.lowered.order) if used + once == number]
    return f"gradient step {', '.join(steps)}"
