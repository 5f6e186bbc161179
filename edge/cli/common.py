"""What several verbs share: option types, threads, output."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ..threads import VARIABLES
from ..units import parse_bytes


def size(text: str) -> int:
    """Read 8MB, 8MiB, 800kB or bytes; the type of the budget options."""
    try:
        return parse_bytes(text)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None


DIRECTORY = click.Path(path_type=Path)
COUNT = click.IntRange(min=1)

bundle_argument = click.argument("bundle", type=DIRECTORY)
bundle_option = click.option(
    "--bundle", type=DIRECTORY, required=True, help="The bundle it was adapted from."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
memory_option = click.option(
    "--memory-budget", type=size, metavar="SIZE", help="Bound on the planned peak, e.g. 8MB."
)
dynamic_option = click.option(
    "--dynamic-budget", type=size, metavar="SIZE", help="Bound on the arena alone, e.g. 1MB."
)
samples_option = click.option(
    "--samples", type=COUNT, help="Most support samples.  [default: as in meta-training]"
)
steps_option = click.option("--steps", type=COUNT, help="Gradient steps.  [default: as in meta-training]")
threads_option = click.option(
    "--threads", type=COUNT, default=1, show_default=True, help="Threads of the numerical libraries."
)


def use_threads(count: int = 1) -> None:
    """Set the numerical libraries' threads; has an effect only before NumPy is imported."""
    for variable in VARIABLES:
        os.environ[variable] = str(count)


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def note(message: str) -> None:
    """Print one line for people on stderr."""
    click.echo(message, err=True)


def print_table(rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> None:
    """Print aligned columns: text to the left, numbers to the right."""
    body = [list(row) for row in rows]
    cells = [[_text(cell) for cell in row] for row in ([list(head)] if head else []) + body]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    right = [all(isinstance(cell, int | float) for cell in column) for column in zip(*body, strict=True)]
    for row in cells:
        padded = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())


def _text(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
