"""`edge-adapt bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import (
    COUNT,
    bundle_argument,
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

if TYPE_CHECKING:
    from ..bench import Comparison

COLUMNS = (
    "engine",
    "seconds",
    "time_ratio",
    "cpu_seconds",
    "planned_peak_bytes",
    "measured_peak_bytes",
    "memory_ratio",
    "dynamic_bytes",
    "micro_batch",
    "schedule",
)


@click.command()
@bundle_argument
@click.option("--engine", "engines", multiple=True, help="Only this engine; may be given again.")
@click.option("--rounds", type=COUNT, default=3, show_default=True, help="Measurements of every engine.")
@threads_option
@memory_option
@samples_option
@steps_option
@click.option(
    "--micro-batch", type=COUNT, default=1, show_default=True, help="Of engines that do not plan memory."
)
@json_option
def bench(
    bundle: Path,
    engines: tuple[str, ...],
    rounds: int,
    threads: int,
    memory_budget: int | None,
    samples: int | None,
    steps: int | None,
    micro_batch: int,
    as_json: bool,
) -> None:
    """Compare time and memory of the engines that are installed, on BUNDLE's self-test samples.

    Every measurement is one adaptation in a fresh process; engines take turns; medians are shown. A budget
    concerns the engines that plan. EDGE_ADAPT_ORT_TRAINING names the Python that has onnxruntime-training.

    \b
    Example:
      edge-adapt bench bundle/ --threads 2 --engine native --engine onnxruntime
    """
    use_threads(threads)
    from ..bench import compare, contenders
    from ..bench_job import Job
    from ..engines import ENGINES
    from ..session import Bundle

    listed = contenders(engines or tuple(ENGINES), tuple(ENGINES))
    opened = Bundle.open(bundle)
    request = opened.request(memory_budget, None, samples, steps)
    job = Job(str(bundle), "", threads, request.samples, request.steps, micro_batch, memory_budget)
    result = compare(listed, job, rounds, note)
    if refused := [error for name, error in result.not_run.items() if name in engines or not result.rows]:
        raise refused[0]
    if as_json:
        about = {"name": opened.files.manifest.name, "sha256": opened.files.identity}
        asked = {"samples": job.samples, "steps": job.steps, "memory_budget_bytes": memory_budget}
        not_run = {name: str(error) for name, error in result.not_run.items()}
        found = {"compared_with": result.compared_with, "rows": result.rows, "not_run": not_run}
        print_json({"bundle": about, **asked, "threads": threads, **found})
    else:
        _print(result)


def _print(result: Comparison) -> None:
    print_table([["-" if row[c] is None else row[c] for c in COLUMNS] for row in result.rows], COLUMNS)
    click.echo(f"\nratios to {result.compared_with}; medians; peaks above the state after imports")
    for name, reason in result.not_run.items():
        click.echo(f"not run: {name}: {reason}")
