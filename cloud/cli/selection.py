"""`meta-train selection`: which layers and channels a finished run updates."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..selection.figures import Selection, Spread, selection
from ..selection.picture import selection_picture
from .options import threads_option


@click.command("selection", epilog="Example: meta-train selection runs/glyphs -o selection.png")
@click.argument("run", type=click.Path())
@click.option("--tasks", type=click.IntRange(min=1), default=100, show_default=True, help="Test tasks.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Draw a picture, PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@threads_option
def selection_command(run: str, tasks: int, out: Path | None, as_json: bool) -> None:
    """Adapt RUN to test tasks; print the share of every layer's weight that a sample updates, per step, and the
    cosine between two samples' scores (p-Meta, figure 5)."""
    found = selection(run, tasks=tasks)
    if out is not None:
        selection_picture(found, out)
    click.echo(json.dumps(found.to_json()) if as_json else _table(found))


def _table(found: Selection) -> str:
    width = max(map(len, found.layers))
    steps = "".join(f"{f'step {step}':>14}" for step, _ in enumerate(found.ratios, start=1))
    lines = [f"{'layer':{width}}{steps}{'cosine':>14}"]
    columns = zip(found.layers, zip(*found.ratios, strict=True), found.similarity, strict=True)
    for name, ratios, similarity in columns:
        lines.append(f"{name:{width}}" + "".join(_cell(value) for value in (*ratios, similarity)))
    return "\n".join(lines)


def _cell(value: Spread | None) -> str:
    return f"{'-' if value is None else f'{value.mean:.2f} ± {value.std:.2f}':>14}"
