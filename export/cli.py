"""`export-bundle`: a training run becomes a bundle."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from ..edge.errors import EdgeAdaptError
from . import export_bundle

INTERRUPTED = 130


@click.command(
    epilog="Example: export-bundle runs/glyphs -o bundle/",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="edge-adapt", prog_name="export-bundle")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Directory to write.")
@click.option("--ort-training", is_flag=True, help="Also write artifacts for ONNX Runtime training.")
def command(run: Path, out: Path, ort_training: bool) -> None:
    """Write the bundle of RUN, a run directory of `meta-train run`.

    Exit codes: 0 done, 1 the model or the run cannot be exported, 2 usage, 130 interrupted.
    """
    target = export_bundle(run, out, ort_training=ort_training)
    size_bytes = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    click.echo(f"{target}: {size_bytes / 1e6:.2f} MB; look at it with: edge-adapt inspect {target}", err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        command.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except EdgeAdaptError as error:
        return _failed(error, error.exit_code)
    except OSError as error:
        return _failed(error, 1)
    except (KeyboardInterrupt, click.Abort):
        return _failed("interrupted", INTERRUPTED)
    return 0


def _failed(message: object, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
