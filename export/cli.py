"""`export-bundle`: a training run or a forward ONNX file becomes a bundle."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..edge.errors import EdgeAdaptError, UsageError
from ..edge.inputs import InputSpec
from ..edge.starting import INTERRUPTED, raise_on_interrupt
from . import export_bundle, export_prototypes

FILE = click.Path(path_type=Path)


def _numbers(context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"expected numbers separated by commas, got {text!r}") from None


@click.command(
    epilog="\b\nExamples:\n  export-bundle runs/glyphs -o bundle/\n"
    "  export-bundle --from-onnx model.onnx -o bundle/ --layers 'classifier*'\n"
    "  export-bundle --from-onnx resnet18.onnx -o bundle/ --prototypes --cut-classifier --classes 20",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="edge-adapt", prog_name="export-bundle")
@click.argument("run", type=FILE, required=False)
@click.option("-o", "--out", type=FILE, help="Directory to write.")
@click.option("--classes", type=click.IntRange(min=2), help="Outputs of a head that the device computes.")
@click.option(
    "--prototypes", is_flag=True, help="FILE makes features: adapt by forward passes; needs --classes."
)
@click.option(
    "--cut-classifier",
    is_flag=True,
    help="With --prototypes: FILE is a classifier, leave its last layer away.",
)
@click.option("--ort-training", is_flag=True, help="Also write artifacts for ONNX Runtime training.")
@click.option("--from-onnx", type=FILE, metavar="FILE", help="A forward ONNX file instead of a run.")
@click.option("--step-size", type=float, help="Learning rate of every chosen layer.  [default: 0.01]")
@click.option("--layers", help="Layers to adapt: names or patterns, separated by commas.  [default: all]")
@click.option("--steps", type=click.IntRange(min=1), help="Gradient steps.  [default: 5]")
@click.option("--samples", type=click.IntRange(min=1), help="Support samples to plan for.  [default: 25]")
@click.option("--loss", help="Loss to adapt with.  [default: softmax-cross-entropy]")
@click.option(
    "--mean", callback=_numbers, metavar="A,B,C", help="The input is images: mean per channel, on value/255."
)
@click.option(
    "--std", callback=_numbers, metavar="A,B,C", help="Standard deviation per channel; goes with --mean."
)
@click.option(
    "--dry-run", is_flag=True, help="Only list every node, its rule and what it stores; write nothing."
)
def command(
    run: Path | None,
    out: Path | None,
    prototypes: bool,
    cut_classifier: bool,
    ort_training: bool,
    from_onnx: Path | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Write the bundle of RUN, a run directory of `meta-train run`, or of a forward ONNX file.

    Exit codes: 0 done, 1 the model or the run cannot be exported, 2 usage, 130 interrupted.
    """
    model = from_onnx or run
    if model is None or (from_onnx and run):
        raise click.UsageError("name a run directory, or a file with --from-onnx (one of the two)")
    if out is None and not dry_run:
        raise click.UsageError("missing option '-o' / '--out'")
    settings = _settings(model, options)
    if dry_run and (prototypes or cut_classifier):
        raise UsageError("--dry-run lists what a backward pass stores; with --prototypes there is none")
    if dry_run or out is None:
        _dry_run(model, options["loss"])
        return
    if prototypes or cut_classifier:
        if ort_training:
            raise UsageError("--prototypes: nothing is trained on the device; leave --ort-training away")
        target = _prototypes(from_onnx, out, cut_classifier, settings)
    else:
        target = export_bundle(model, out, ort_training=ort_training, **settings)
    size_bytes = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    click.echo(f"{target}: {size_bytes / 1e6:.2f} MB; look at it with: edge-adapt inspect {target}", err=True)


def _prototypes(model: Path | None, out: Path, cut_classifier: bool, settings: dict[str, Any]) -> Path:
    if model is None or "classes" not in settings:
        raise UsageError("--prototypes needs a feature extractor, --from-onnx FILE, and --classes")
    if odd := sorted(set(settings) - {"classes", "samples", "input"}):
        raise UsageError(f"--prototypes: nothing is trained on the device; leave {', '.join(odd)} away")
    return export_prototypes(model, out, cut_classifier=cut_classifier, **settings)


def _settings(model: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as arguments of `export_bundle`."""
    given = {name: value for name, value in options.items() if value is not None}
    mean, std = given.pop("mean", None), given.pop("std", None)
    if (mean is None) != (std is None):
        raise UsageError("--mean and --std go together, one number per channel each")
    if mean is not None:
        given["input"] = _image_spec(model, mean, std)
    if "layers" in given:
        given["layers"] = [name.strip() for name in given["layers"].split(",")]
    return given


def _image_spec(model: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> InputSpec:
    from .plain import sample_shape_of

    shape = sample_shape_of(model)
    if len(shape) != 3:
        raise UsageError(f"--mean: images are (channels, height, width), the samples of {model} are {shape}")
    return InputSpec(*shape, mean=mean, std=std)


def _dry_run(model: Path, loss: str | None) -> None:
    from .coverage import coverage_report
    from .losses import DEFAULT

    report = coverage_report(model, loss=loss or DEFAULT)
    if report.text:
        click.echo(report.text)
    if report.refusal is not None:
        raise EdgeAdaptError(report.refusal)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        raise_on_interrupt()
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
