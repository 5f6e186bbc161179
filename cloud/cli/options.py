"""Options that several verbs share."""

from __future__ import annotations

import click
import torch


def _set_threads(ctx: click.Context, parameter: click.Parameter, threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)


threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    callback=_set_threads,
    expose_value=False,
    help="CPU threads for PyTorch (default: all cores). Runs repeat bit for bit with 1, else up to rounding.",
)
