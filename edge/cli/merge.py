"""`edge-adapt merge`."""

from __future__ import annotations

from pathlib import Path

import click

from .common import DIRECTORY, bundle_option, note, use_threads


@click.command()
@click.argument("adapted", type=DIRECTORY)
@bundle_option
@click.option(
    "-o", "--output", type=DIRECTORY, required=True, help="Directory for model.onnx and its weights."
)
def merge(adapted: Path, bundle: Path, output: Path) -> None:
    """Write the model in ADAPTED as an ordinary ONNX model.

    \b
    Example:
      edge-adapt merge adapted/ --bundle bundle/ -o merged/
    """
    use_threads()
    from ..bundle import merge as write_merged
    from ..bundle import read_adapted, read_bundle

    files = read_bundle(bundle)
    write_merged(files, read_adapted(adapted, files), output)
    note(f"wrote {output / 'model.onnx'}")
