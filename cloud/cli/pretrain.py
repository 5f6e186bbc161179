"""`meta-train pretrain`: ordinary supervised training of a backbone."""

from __future__ import annotations

from pathlib import Path

import click

from ..memory.allocator import keep_freed_memory
from ..pretraining import Pretraining, pretrain
from ..settings.tables import parse_override
from .options import threads_option


@click.command(
    "pretrain",
    epilog="Example: meta-train pretrain resnet18 --data miniimagenet=DIR --out runs/extractor --set crop=64",
)
@click.argument("backbone")
@click.option(
    "--data", required=True, metavar="NAME[=DIR]", help="Data set by name, with the directory it lies in."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory to write.")
@click.option("--resume", is_flag=True, help="Go on with the interrupted training in --out; same numbers.")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting, e.g. epochs=30."
)
@threads_option
def pretrain_command(backbone: str, data: str, out: Path, resume: bool, changes: tuple[str, ...]) -> None:
    """Train BACKBONE to tell all training classes of a data set apart; keep all but its classifier.

    OUT/weights.safetensors is what `meta-train run ... --set train.initial_weights=FILE` starts from.
    """
    keep_freed_memory()
    name, _, root = data.partition("=")
    given = {"name": name, **({"root": root} if root else {})}
    overrides = dict(parse_override(change) for change in changes)
    settings = Pretraining.from_table({"backbone": backbone, "data": given}, overrides)
    try:
        done = pretrain(settings, out, resume=resume, progress=True)
    except KeyboardInterrupt:
        click.echo("interrupted; the state is saved. Go on with the same command and --resume", err=True)
        click.get_current_context().exit(130)
    click.echo(f"{done.weights}: {done.accuracy:.2%} of the held-out images, {done.seconds / 60:.1f} minutes")
