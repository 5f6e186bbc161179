"""`meta-train eval`: score a finished run."""

from __future__ import annotations

import json

import click

from ..evaluate import evaluate
from .options import threads_option


@click.command("eval", epilog="Example: meta-train eval runs/glyphs --tasks 600 --json")
@click.argument("run", type=click.Path())
@click.option("--data", metavar="NAME=DIR", help="Another data set, or where it lies, e.g. folder=photos/.")
@click.option("--tasks", type=click.IntRange(min=2), default=600, show_default=True, help="Test tasks.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Support samples run at once: attention averages over them, batch norm has their statistics. "
    "Default: attention per sample, as on the device, and statistics of the whole support set.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@threads_option
def evaluate_command(run: str, data: str | None, tasks: int, batch: int | None, as_json: bool) -> None:
    """Adapt RUN to test tasks exactly as the device does; print accuracy, or mean squared error, with its 95 %
    interval."""
    score = evaluate(run, data, tasks=tasks, batch=batch, progress=True)
    if as_json:
        click.echo(json.dumps(score.to_json()))
    else:
        click.echo(", ".join(filter(None, (score.text, score.before_text))))
