"""`edge-adapt plan`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from .common import (
    DIRECTORY,
    bundle_argument,
    dynamic_option,
    engine_option,
    json_option,
    memory_option,
    note,
    print_json,
    print_table,
    samples_option,
    steps_option,
    threads_option,
    use_threads,
)
from .plan_text import how

if TYPE_CHECKING:
    from ..plan import Plan

COLUMNS = {
    "planned_peak_bytes": "planned peak",
    "dynamic_bytes": "arena",
    "predicted_seconds": "seconds",
    "macs": "MACs",
    "benefit_kept": "benefit kept",
    "frozen_layers": "frozen",
    "cap_cut": "cap cut",
    "schedule": "schedule",
    "storage": "storage",
    "saved_bits": "kept bits",
    "cache_bits": "cached bits",
    "micro_batch": "micro-batch",
    "recompute": "recompute",
    "tiling": "tiling",
}


@click.command()
@bundle_argument
@memory_option
@dynamic_option
@samples_option
@steps_option
@engine_option
@threads_option
@json_option
@click.option(
    "--support", type=DIRECTORY, help="Plan for exactly these samples: one folder per class, or an .npz."
)
@click.option("--sweep", is_flag=True, help="One row for every budget that gives another plan.")
@click.option(
    "--plot", type=DIRECTORY, help="Draw the arena over time, or the sweep (PNG; needs matplotlib)."
)
def plan(
    bundle: Path,
    memory_budget: int | None,
    dynamic_budget: int | None,
    samples: int | None,
    steps: int | None,
    engine: str | None,
    threads: int,
    as_json: bool,
    support: Path | None,
    sweep: bool,
    plot: Path | None,
) -> None:
    """Say what adapting BUNDLE will take, before anything is allocated.

    Without --support, a bundle that adapts by forward passes is planned for image files of the network's own size, or
    an .npz, whichever takes more to read; larger files take more.

    \b
    Example:
      edge-adapt plan bundle/ --memory-budget 8MB --samples 25
      edge-adapt plan bundle/ --support photos/
      edge-adapt plan bundle/ --sweep --plot frontier.png
    """
    if sweep and support is not None:
        raise UsageError("--sweep is made before there is a support set; leave --support away, or --sweep")
    use_threads(threads)
    from ..session import Bundle

    opened = Bundle.open(bundle)
    asked = (memory_budget, dynamic_budget, samples, steps, engine, threads)
    if sweep:
        plans = opened.frontier(*asked)
        _draw_frontier(plans, plot)
        _print_frontier(plans, as_json)
        return
    result = opened.plan(*asked, support)
    if plot is not None:
        from ..plan.picture import draw_arena

        draw_arena(result, plot)
        note(f"wrote {plot}")
    if as_json:
        print_json(result.to_json())
    else:
        _print_plan(result)


def _draw_frontier(plans: Sequence[Plan], plot: Path | None) -> None:
    if plot is None:
        return
    from ..plan.frontier_picture import draw_frontier

    draw_frontier(plans, plot)
    note(f"wrote {plot}")


def _print_frontier(plans: Sequence[Plan], as_json: bool) -> None:
    """Print one row per plan; as JSON the roomiest plan with the rows under `frontier`."""
    from ..plan.frontier import frontier_row

    rows = [frontier_row(plan) for plan in plans]
    if as_json:
        print_json({**plans[0].to_json(), "frontier": rows})
        return
    cells = [["-" if row[key] is None else row[key] for key in COLUMNS] for row in rows]
    print_table(cells, list(COLUMNS.values()))


def _print_plan(plan: Plan) -> None:
    """Print the terms of the peak and the layers of every step."""
    rows: list[tuple[str, int]] = [(term, size) for term, size in plan.terms.items() if size]
    print_table([*rows, ("planned peak", plan.planned_peak_bytes)], ("term", "bytes at the peak"))
    click.echo(
        f"\nstatic {plan.static_bytes} B, dynamic (arena) {plan.dynamic_bytes} B, {plan.macs:.3g} MACs\n"
        f"{how(plan.to_json())}\n"
    )
    print_table(
        [
            (index + 1, " ".join(layers) or "(none)", " ".join(frozen) or "-")
            for index, (layers, frozen) in enumerate(zip(plan.layers, plan.freezing.layers, strict=True))
        ],
        ("step", "updated layers", "frozen to fit"),
    )
