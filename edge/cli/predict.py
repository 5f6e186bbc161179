"""`edge-adapt predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import (
    DIRECTORY,
    bundle_option,
    engine_option,
    json_option,
    note,
    print_json,
    print_table,
    threads_option,
    use_threads,
)


@click.command()
@click.argument("adapted", type=DIRECTORY)
@bundle_option
@click.option("--input", "source", type=DIRECTORY, required=True, help="A folder of images, or an .npz.")
@engine_option
@threads_option
@json_option
def predict(
    adapted: Path, bundle: Path, source: Path, engine: str | None, threads: int, as_json: bool
) -> None:
    """Name the class of every sample with the model in ADAPTED, or print its outputs where it has no classes.

    \b
    Example:
      edge-adapt predict adapted/ --bundle bundle/ --input photos/
    """
    use_threads(threads)
    from ..predict import predict_path
    from ..session import Bundle

    result = predict_path(Bundle.open(bundle).load(adapted, engine, threads), source)
    for phrase in result["converted"]:
        note(f"{source}: {phrase}")
    if as_json:
        print_json(result)
        return
    columns = [key for key in result["predictions"][0] if key != "label"]
    print_table([[_cell(row[key]) for key in columns] for row in result["predictions"]], columns)
    if result["accuracy"] is not None:
        note(f"accuracy {result['accuracy']:.3f} of {result['samples']}")


def _cell(value: Any) -> object:
    """Return the numbers of nested lists in one line, and other values as they are."""
    import numpy as np

    return " ".join(f"{number:.4g}" for number in np.ravel(value)) if isinstance(value, list) else value
