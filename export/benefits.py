"""What updating a layer is worth, estimated on labelled samples: the first-order decrease of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..edge.program import Program
from ..edge.reference.interpret import interpret
from .adaptation import adaptation, tensors
from .errors import ExportError
from .source import Source

CHUNK = 8


def measured_benefits(
    source: Source, samples: NDArray[np.float32], labels: NDArray[Any]
) -> NDArray[np.float64]:
    """Adapt to the samples and return alpha * |g|^2 per step and layer, (K, layers).

    Args:
        source: the network and its step sizes.
        samples: (n, ...) network inputs.
        labels: (n,) class indices.

    Raises:
        ExportError: labels that are no classes of the network, or of another number than the samples.
    """
    classes = source.captured.output_shape[0]
    if source.loss != "softmax-cross-entropy":
        raise ExportError(f"calibration needs class labels; the loss is {source.loss}")
    whole = np.issubdtype(labels.dtype, np.integer) and len(labels) == len(samples) > 0
    if not whole or labels.ndim != 1 or labels.min() < 0 or labels.max() >= classes:
        raise ExportError(
            f"calibration: expected one class index below {classes} per sample ({len(samples)} of them), got "
            f"{labels.dtype} {labels.shape}"
        )
    program = adaptation(source)
    weights = tensors(source, program)
    layers = program.layers
    benefits = np.zeros((len(source.alpha), len(source.layer_names)))
    for step, row in enumerate(source.alpha):
        gradients = _mean_gradients(program, weights, samples, labels)
        for layer in layers:
            for param, grad in zip(layer.params, layer.grads, strict=True):
                benefits[step, layer.index] += row[layer.index] * float(np.sum(gradients[grad] ** 2))
                weights[param] = weights[param] - row[layer.index] * gradients[grad]
    if not np.all(np.isfinite(benefits)):
        raise ExportError(
            "calibration: the loss is not finite after the gradient steps; use a smaller step_size"
        )
    return benefits


def _mean_gradients(
    program: Program, weights: dict[str, Any], samples: NDArray[np.float32], labels: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    names = [grad for layer in program.layers for grad in layer.grads]
    total = {name: np.zeros(program.tensors[name].concrete(1), np.float32) for name in names}
    for start in range(0, len(samples), CHUNK):
        part = samples[start : start + CHUNK]
        values = {
            **weights,
            "images": part,
            "labels": labels[start : start + CHUNK],
            "sample_weight": np.full(len(part), 1 / len(samples)),
            "class_mask": np.ones(program.tensors["class_mask"].concrete(1)),
        }
        for name, gradient in interpret(program, values, names, np.float32).items():
            total[name] += gradient
    return total
