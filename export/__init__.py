"""Turn a meta-trained model, your own torch module or an ONNX file into a bundle that a device adapts."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from ..edge.errors import UsageError
from ..edge.inputs import ArraySpec, InputSpec
from .errors import ExportError

if TYPE_CHECKING:
    from torch import nn

    from .amortized import AmortizedSource
    from .plain import Settings, StepSizes, Values
    from .source import Source

__all__ = ["ArraySpec", "ExportError", "InputSpec", "export_bundle", "export_prototypes"]


def export_bundle(
    model: str | PathLike[str] | nn.Module | Source | AmortizedSource,
    out: str | PathLike[str],
    *,
    example_input: Values | None = None,
    step_size: StepSizes = 0.01,
    layers: Sequence[str] | None = None,
    steps: int = 5,
    samples: int = 25,
    input: InputSpec | ArraySpec | None = None,
    loss: str = "softmax-cross-entropy",
    label_smoothing: float = 0.0,
    batch_norm: str = "affine",
    calibration: tuple[Values, Values] | None = None,
    name: str | None = None,
    classes: int | None = None,
    ort_training: bool = False,
) -> Path:
    """Write the bundle of a training run, of your own torch module, or of a forward ONNX file.

    A run brings its own step sizes, layers and preprocessing: for it, only `classes` and `ort_training` may be given.
    `export_prototypes` makes a bundle of your own module that adapts by forward passes.

    Args:
        model: a finished run directory of `meta-train run`, a torch module, or the path of an .onnx file.
        out: the directory to write; an existing bundle is replaced, anything else is refused.
        example_input: for a torch module: a batch (n, ...) as it takes it; only shape and type are used.
        step_size: one learning rate for every chosen layer and step, or a table (steps, layers).
        layers: names or patterns ("head", "blocks.3.*") of the layers to adapt; None: all of them.
        steps: gradient steps K.
        samples: support samples that plans are made for by default.
        input: preprocessing of a sample: an `InputSpec` for images (folders of files, uint8 arrays), or an
            `ArraySpec`; None: float32 arrays as they are.
        loss: "softmax-cross-entropy", "mean-squared-error", "categorical-policy-gradient" or
            "gaussian-policy-gradient".
        label_smoothing: of the cross-entropy, in [0, 1).
        batch_norm: what a BatchNorm becomes: "affine" (its fixed statistics as a scale and shift per channel),
            "conv" (the same, inside the convolution before it) or "group-norm".
        calibration: labelled samples (images, labels): they measure what updating each layer is worth.
        name: of the bundle.
        classes: of a run of prototypes, CNAPs or Simple CNAPs: outputs of the head; None: the classes of its tasks.
        ort_training: also write `ort_training/`, the artifacts of ONNX Runtime training.

    Returns:
        The bundle's directory.

    Raises:
        ExportError: the model cannot be exported (names the node and the way out); nothing is written.
        UsageError: `out` exists and is not a bundle, or options that do not go together.
    """
    from .bundle import check_target
    from .plain import Settings

    target = Path(out)
    check_target(target)
    settings = Settings(
        step_size, layers, steps, samples, input, loss, label_smoothing, batch_norm, calibration, name
    )
    _write(_source(model, example_input, settings, classes), target, ort_training)
    return target


def _write(source: Source | AmortizedSource, target: Path, ort_training: bool) -> None:
    from .amortized import AmortizedSource
    from .amortized_bundle import write_amortized
    from .bundle import write_bundle

    if not isinstance(source, AmortizedSource):
        write_bundle(source, target, ort_training=ort_training)
    elif ort_training:
        raise UsageError(
            f"a bundle of kind {source.kind} is not trained on a device: leave --ort-training away"
        )
    else:
        write_amortized(source, target)


def _source(
    model: str | PathLike[str] | nn.Module | Source | AmortizedSource,
    example: Values | None,
    settings: Settings,
    classes: int | None,
) -> Source | AmortizedSource:
    from .amortized import AmortizedSource
    from .plain import source_of_module, source_of_onnx
    from .source import Source

    is_run = (
        isinstance(model, (str, PathLike)) and Path(model).suffix != ".onnx" and not Path(model).is_file()
    )
    if classes is not None and not is_run:
        raise UsageError("classes: only for a run of a learner; of your own model see export_prototypes")
    if isinstance(model, (str, PathLike)) and not is_run:
        return source_of_onnx(Path(model), settings, example)
    if not isinstance(model, (str, PathLike, Source, AmortizedSource)):
        if example is None:
            raise ExportError("a torch module needs example_input, a batch (n, ...) as the module takes it")
        return source_of_module(model, example, settings)
    if given := [*settings.changed, *(["example_input"] if example is not None else [])]:
        raise UsageError(
            f"{', '.join(given)}: only for a torch module or an ONNX file; a training run brings its own step sizes, "
            "layers and preprocessing"
        )
    return model if isinstance(model, (Source, AmortizedSource)) else _of_run(model, classes)


def _of_run(path: str | PathLike[str], classes: int | None) -> Source | AmortizedSource:
    from ..cloud import AmortizedRun, ConfigError, load_run
    from .from_run import source_of_learner, source_of_run

    try:
        run = load_run(path)
    except ConfigError as error:
        raise ExportError(str(error)) from error
    if isinstance(run, AmortizedRun):
        return source_of_learner(run, classes)
    if classes is not None:
        raise UsageError(
            "classes: the head of a model that adapts by gradient steps has as many as it was trained for"
        )
    return source_of_run(run)


def export_prototypes(
    model: str | PathLike[str] | nn.Module,
    out: str | PathLike[str],
    *,
    classes: int,
    example_input: Values | None = None,
    cut_classifier: bool = False,
    samples: int = 25,
    input: InputSpec | ArraySpec | None = None,
    name: str | None = None,
) -> Path:
    """Write a bundle of kind "prototypes" of your own feature extractor: a class is the mean of its features.

    Args:
        model: a torch module, samples (n, ...) to features (n, D), exported in evaluation mode; or the path of such an
            ONNX file.
        out: the directory to write; an existing bundle is replaced, anything else is refused.
        classes: most classes a device can tell apart.
        example_input: for a torch module: a batch (n, ...) as it takes it; only shape and type are used.
        cut_classifier: the model is a classifier: its last fully connected layer is left away.
        samples: support samples that plans are made for by default; a device may bring more.
        input: preprocessing of a sample; None: float32 arrays as they are.
        name: of the bundle.

    Returns:
        The bundle's directory.

    Raises:
        ExportError: the model cannot be exported (names the node and the way out); nothing is written.
        UsageError: `out` exists and is not a bundle.
    """
    from .amortized import source_of_extractor
    from .amortized_bundle import write_amortized
    from .bundle import check_target

    target = Path(out)
    check_target(target)
    source = source_of_extractor(
        model, classes, example_input, cut_classifier=cut_classifier, samples=samples, input=input, name=name
    )
    return write_amortized(source, target)
