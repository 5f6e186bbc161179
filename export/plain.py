"""A network that was not meta-trained here becomes a source: your own torch module, or a forward ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..edge.inputs import ArraySpec, InputSpec
from ..edge.program import Program
from .benefits import measured_benefits
from .capture import capture
from .converters import batch_first_attention, fold_batch_norm, to_group_norm
from .errors import ExportError
from .losses import loss_named, with_learned
from .network import Network
from .onnx_import import import_forward
from .reading.file import load_onnx
from .source import Source

BATCH_NORMS = ("affine", "conv", "group-norm")
Values: TypeAlias = NDArray[Any] | torch.Tensor
StepSizes: TypeAlias = float | NDArray[Any] | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Settings:
    """How a network that was not meta-trained here will be adapted.

    Attributes:
        step_size: one learning rate, or a table (K, layers) of step sizes.
        layers: names or patterns ("head", "blocks.3.*") of the layers to adapt; None: all.
        steps: K, gradient steps; a table's rows say it.
        samples: support samples that plans are made for by default.
        input: preprocessing; None: float32 arrays as they are.
        loss: name of the loss.
        label_smoothing: of the cross-entropy.
        batch_norm: what a BatchNorm becomes: "affine" (its fixed statistics as a scale and shift per channel),
            "conv" (the same, inside the convolution before it) or "group-norm".
        calibration: labelled samples (images, labels), from which benefits (and GroupNorms) are estimated.
        name: of the bundle.
    """

    step_size: StepSizes = 0.01
    layers: Sequence[str] | None = None
    steps: int = 5
    samples: int = 25
    input: InputSpec | ArraySpec | None = None
    loss: str = "softmax-cross-entropy"
    label_smoothing: float = 0.0
    batch_norm: str = "affine"
    calibration: tuple[Values, Values] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "samples"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ExportError(f"{name}: expected a positive integer, got {value!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ExportError(f"label_smoothing: expected a share in [0, 1), got {self.label_smoothing!r}")
        if self.batch_norm not in BATCH_NORMS:
            raise ExportError(
                f"batch_norm: expected one of {', '.join(BATCH_NORMS)}, got {self.batch_norm!r}"
            )

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the settings that differ from their defaults."""
        given = ((field, getattr(self, field.name)) for field in fields(self))
        return tuple(
            field.name
            for field, value in given
            if type(value) is not type(field.default) or value != field.default
        )


def source_of_module(module: nn.Module, example: Values, settings: Settings) -> Source:
    """Capture a torch module; it is not changed.

    Args:
        module: samples (N, ...) to outputs (N, ...), exported in evaluation mode.
        example: (n, ...) as the module takes it; only its shape and type are used.
        settings: how it will be adapted.

    Raises:
        ExportError: the module holds what no rule recognises, or a setting does not fit it.
    """
    shape = sample_shape(example)
    spec = settings.input or ArraySpec(shape)
    if tuple(spec.shape) != shape:
        raise ExportError(f"input: its shape is {tuple(spec.shape)}, but the example's samples are {shape}")
    prepared, notes = _converted(module, settings, spec)
    network = capture(prepared, shape)
    about = {"source": f"torch module {type(module).__name__}"}
    return _source(replace(network, notes=notes), prepared, spec, settings, about)


def source_of_onnx(path: Path, settings: Settings, example: Values | None = None) -> Source:
    """Import a forward ONNX file of any framework.

    Args:
        path: the file; its external data lie beside it.
        settings: how it will be adapted; `batch_norm` other than "affine" needs a torch module.
        example: (n, ...), where the file leaves the shape of a sample open.

    Raises:
        ExportError: the file is none, or holds what no rule recognises, or a setting does not fit it.
    """
    if settings.batch_norm != "affine":
        raise ExportError(f"batch_norm={settings.batch_norm!r} needs a torch module, not an ONNX file")
    given = None if settings.input is None else tuple(settings.input.shape)
    model, params = load_onnx(path, given if example is None else sample_shape(example))
    network = import_forward(model, params)
    shape = tuple(int(axis) for axis in network.program.tensors["images"].shape[1:])
    spec = settings.input or ArraySpec(shape)
    if tuple(spec.shape) != shape:
        raise ExportError(f"input: its shape is {tuple(spec.shape)}, but the file's samples are {shape}")
    return _source(network, None, spec, settings, {"source": f"ONNX file {path.name}"})


def sample_shape_of(path: Path) -> tuple[int, ...]:
    """Shape of one sample of an ONNX file's input; raises ExportError as `source_of_onnx`."""
    model, _ = load_onnx(path)
    axes = model.graph.input[0].type.tensor_type.shape.dim[1:]
    return tuple(int(axis.dim_value) for axis in axes)


def sample_shape(example: Values) -> tuple[int, ...]:
    """Shape of one sample of an example batch; raises ExportError unless it is (n, ...) of real numbers."""
    array = np.asarray(example.detach().cpu() if isinstance(example, torch.Tensor) else example)
    if array.dtype.kind != "f" or array.ndim < 2:
        raise ExportError(
            f"example_input: expected real numbers of shape (n, ...), got {array.dtype} {array.shape}; modules that "
            "look up integers cannot be adapted on a device: start at the embedding's output"
        )
    return tuple(array.shape[1:])


def _converted(
    module: nn.Module, settings: Settings, spec: InputSpec | ArraySpec
) -> tuple[nn.Module, tuple[str, ...]]:
    """Rewrite what the exporter cannot take as it is; notes say what was changed."""
    types = sorted({str(value.dtype) for value in module.parameters() if value.dtype != torch.float32})
    cast = tuple(f"weights converted from {name} to float32" for name in types)
    module, attending = batch_first_attention(module)
    notes = (*cast, *attending)
    if settings.batch_norm == "group-norm":
        images = None if settings.calibration is None else _network_inputs(settings.calibration[0], spec)
        tensors = None if images is None else torch.from_numpy(images)
        module, more = to_group_norm(module, images=tensors)
    else:
        module, more = fold_batch_norm(module, into_conv=settings.batch_norm == "conv")
    return module, (*notes, *more)


def _network_inputs(images: Values, spec: InputSpec | ArraySpec) -> NDArray[np.float32]:
    """Preprocess uint8 images; float arrays are inputs already."""
    array = np.asarray(images.detach().cpu() if isinstance(images, torch.Tensor) else images)
    if array.dtype == np.uint8 and isinstance(spec, InputSpec):
        return spec.preprocess(array)
    if array.dtype.kind != "f" or array.shape[1:] != tuple(spec.shape):
        raise ExportError(
            f"calibration: expected samples of shape {tuple(spec.shape)}, got {array.dtype} {array.shape[1:]}"
        )
    return np.ascontiguousarray(array, np.float32)


def _source(
    network: Network,
    module: nn.Module | None,
    spec: InputSpec | ArraySpec,
    settings: Settings,
    about: Mapping[str, Any],
) -> Source:
    network = with_learned(loss_named(settings.loss, settings.label_smoothing), network, module, ())
    names = tuple(layer.name for layer in network.program.layers)
    source = Source(
        name=settings.name or about["source"].rpartition(" ")[2],
        module=module,
        input=spec,
        layer_names=names,
        alpha=step_sizes(network.program, settings),
        samples=settings.samples,
        provenance={**about, "notes": list(network.notes)},
        network=network,
        loss=settings.loss,
        label_smoothing=settings.label_smoothing,
    )
    if settings.calibration is None:
        return source
    images, labels = settings.calibration
    benefits = measured_benefits(source, _network_inputs(images, spec), np.asarray(labels))
    return replace(
        source, benefits=benefits, provenance={**source.provenance, "calibration_samples": len(labels)}
    )


def step_sizes(program: Program, settings: Settings) -> NDArray[np.float32]:
    """The table (K, layers): zero for layers that are not chosen.

    Raises:
        ExportError: a pattern that fits no layer, a table of another shape, a negative or infinite step size.
    """
    names = [layer.name for layer in program.layers]
    given = np.asarray(settings.step_size, np.float32)
    if given.ndim == 2 and given.shape[1] != len(names):
        raise ExportError(
            f"step_size: expected a number or a table (steps, {len(names)}), one column per layer "
            f"({', '.join(names)}), got shape {given.shape}"
        )
    if given.ndim not in (0, 2) or not np.all(np.isfinite(given)) or np.any(given < 0) or not given.any():
        raise ExportError("step_size: expected positive numbers (0 in a table: not updated in that step)")
    table = np.full((settings.steps, len(names)), given, np.float32) if given.ndim == 0 else given
    chosen = np.array([_is_chosen(name, settings.layers) for name in names])
    for pattern in settings.layers or ():
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ExportError(f"layers: {pattern!r} fits no layer; there are: {', '.join(names)}")
    return np.ascontiguousarray(table * chosen)


def _is_chosen(name: str, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)
