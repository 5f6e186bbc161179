"""`edge-adapt run`."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import EdgeAdaptError
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
from .progress import ProgressBar

SHOWN = (
    "engine",
    "support_samples",
    "support_accuracy",
    "loss",
    "steps",
    "seconds",
    "planned_peak_bytes",
    "measured_peak_bytes",
    "dynamic_bytes",
    "measured_dynamic_bytes",
    "baseline_bytes",
    "process_peak_bytes",
    "kept",
)


@click.command()
@bundle_argument
@click.option("--support", type=DIRECTORY, required=True, help="One folder per class, or an .npz of samples.")
@click.option("-o", "--output", type=DIRECTORY, required=True, help="The adapted model's directory.")
@memory_option
@dynamic_option
@engine_option
@steps_option
@samples_option
@threads_option
@json_option
def run(
    bundle: Path,
    support: Path,
    output: Path,
    memory_budget: int | None,
    dynamic_budget: int | None,
    engine: str | None,
    steps: int | None,
    samples: int | None,
    threads: int,
    as_json: bool,
) -> None:
    """Adapt BUNDLE to a few samples and write the adapted model.

    After every gradient step the changed tensors are kept in OUTPUT.partial; the same command continues from there.
    A bundle that adapts by forward passes keeps nothing: it starts again.

    \b
    Example:
      edge-adapt run bundle/ --support photos/ -o adapted/ --memory-budget 8MB
    """
    use_threads(threads)
    from ..report import broken_promise
    from ..session import Bundle

    opened = Bundle.open(bundle)
    request = opened.request(memory_budget, dynamic_budget, samples, steps)
    with ProgressBar() as bar:
        model = opened.run(support, output, request, engine, bar.show, note, threads)
    report = model.report
    if as_json:
        print_json(report)
    else:
        print_table([(key, report[key]) for key in SHOWN if report[key] is not None])
        if report["storage"] is not None:
            click.echo(f"\n{how(report)}")
    if (broken := broken_promise(report)) is not None:
        raise EdgeAdaptError(broken)
