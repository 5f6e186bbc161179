"""`edge-adapt plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import (
    DIRECTORY,
    bundle_argument,
    dynamic_option,
    json_option,
    memory_option,
    note,
    print_json,
    print_table,
    samples_option,
    steps_option,
    use_threads,
)

if TYPE_CHECKING:
    from ..plan import Plan


@click.command()
@bundle_argument
@memory_option
@dynamic_option
@samples_option
@steps_option
@json_option
@click.option("--plot", type=DIRECTORY, help="Draw the arena over time (PNG; needs matplotlib).")
def plan(
    bundle: Path,
    memory_budget: int | None,
    dynamic_budget: int | None,
    samples: int | None,
    steps: int | None,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Say what adapting BUNDLE will take, before anything is allocated.

    \b
    Example:
      edge-adapt plan bundle/ --memory-budget 8MB --samples 25
    """
    use_threads()
    from ..session import Bundle

    result = Bundle.open(bundle).plan(memory_budget, dynamic_budget, samples, steps)
    if plot is not None:
        from ..plan.picture import draw_arena

        draw_arena(result, plot)
        note(f"wrote {plot}")
    if as_json:
        print_json(result.to_json())
    else:
        _print_plan(result)


def _print_plan(plan: Plan) -> None:
    """Print the terms of the peak and the layers of every step."""
    rows: list[tuple[str, int]] = [(term, size) for term, size in plan.terms.items() if size]
    print_table([*rows, ("planned peak", plan.planned_peak_bytes)], ("term", "bytes at the peak"))
    click.echo(
        f"\nstatic {plan.static_bytes} B, dynamic (arena) {plan.dynamic_bytes} B,"
        f" {plan.samples} samples in micro-batches of {plan.micro_batch},"
        f" schedule {plan.schedule}, storage {plan.storage}, {plan.macs:.3g} MACs\n"
    )
    print_table(
        [(index + 1, " ".join(layers) or "(none)") for index, layers in enumerate(plan.layers)],
        ("step", "updated layers"),
    )
