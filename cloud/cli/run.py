"""`meta-train run`: meta-train from a recipe."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from ..memory.allocator import keep_freed_memory
from ..run.directory import RunDirectory
from ..settings.tables import parse_override
from ..train import train
from .options import threads_option


@click.command(
    "run", epilog="Example: meta-train run pmeta-conv4-glyphs --out runs/glyphs --set train.outer_steps=300"
)
@click.argument("recipe")
@click.option(
    "--data", type=click.Path(), help="Folder of images, or the directory with the data set's file."
)
@click.option("--out", type=click.Path(path_type=Path), help="Run directory.  [default: runs/RECIPE]")
@click.option(
    "--memory-budget",
    metavar="SIZE",
    help="Choose lite.h, lite.query_batch and lite.chunk so that training fits, e.g. 2GB of this process (CPU) or "
    "of the GPU's allocator.",
)
@click.option("--resume", is_flag=True, help="Go on with the interrupted run in --out; same numbers.")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting, e.g. task.shots=5."
)
@threads_option
def run_command(
    recipe: str,
    data: str | None,
    out: Path | None,
    memory_budget: str | None,
    resume: bool,
    changes: tuple[str, ...],
) -> None:
    """Meta-train RECIPE (a name from `meta-train list`, or a .toml file) and leave a run directory behind.

    Ctrl-C saves the state; --resume goes on from it and ends with the same numbers.
    """
    keep_freed_memory()
    out = out or Path("runs") / Path(recipe).stem
    overrides = dict(parse_override(change) for change in changes)
    try:
        trained = train(
            recipe, out, overrides, data=data, memory_budget=memory_budget, resume=resume, progress=True
        )
    except KeyboardInterrupt:
        click.echo(_how_to_resume(out, resume), err=True)
        click.get_current_context().exit(130)
    test = trained.test
    before = f" ({test.before_text})" if test.before_text else ""
    click.echo(f"{out}: {test.text}{before}, {trained.line}")


def _how_to_resume(out: Path, resumed: bool) -> str:
    if not RunDirectory(out).checkpoint.exists():
        return "interrupted before the first step; nothing was saved"
    command = ["meta-train", *sys.argv[1:], *([] if resumed else ["--resume"])]
    return f"interrupted; the state is saved. Go on with: {shlex.join(command)}"
