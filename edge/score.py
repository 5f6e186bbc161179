"""What a model's outputs are worth: the loss and accuracy of a support set, and what a prediction is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import BundleFiles
from .engines import Engine, Weights
from .inputs import AnySupport
from .losses import finite, log_softmax

OUTPUT_BYTES = 256 * 1024  # of the support set's outputs that are held at once; no plan counts them


def score(
    files: BundleFiles, engine: Engine, weights: Weights, support: AnySupport
) -> tuple[float, float | None]:
    """Predict the support set; return its mean loss, in float64, and its accuracy (None without classes).

    Args:
        files: the bundle, which names the loss.
        engine: what predicts.
        weights: the adapted parameters.
        support: the support set; outputs beyond its classes are left out.
    """
    loss, learned = files.loss, files.loss.learned_tensors(files.program)
    tensors = {name: weights.mapped(tensor) for name, tensor in learned.items()}
    total, hits = 0.0, 0
    for part in _parts(files, support):
        outputs = engine.predict(files.program, weights, part)
        used = outputs[:, : len(support.class_names)] if loss.classifies else outputs
        for n in range(len(part)):
            total += loss.mean(used[n : n + 1].astype(np.float64), {**_row(part.given, n), **tensors})
        hits += int((used.argmax(axis=1) == part.labels).sum()) if loss.classifies else 0
    return total / len(support), hits / len(support) if loss.classifies else None


def answer(files: BundleFiles, outputs: NDArray[np.float32], classes: int) -> NDArray[np.float64]:
    """Return what a prediction is: class probabilities (n, classes), or the outputs (n, ...) of other losses.

    Raises:
        EdgeAdaptError: an output is NaN or infinite; names the sample.
    """
    return probabilities(outputs, classes) if files.loss.classifies else finite(outputs)


def probabilities(logits: NDArray[np.float32], classes: int) -> NDArray[np.float64]:
    """Return the softmax over the first `classes` outputs, (n, classes); raises on NaN and infinity."""
    return np.asarray(np.exp(log_softmax(finite(logits[:, :classes]))))


def _parts(files: BundleFiles, support: AnySupport) -> Iterator[AnySupport]:
    """Yield the support set in pieces whose outputs are small."""
    one = files.program.tensors[files.program.outputs["logits"]].size_bytes(1)
    count = max(1, OUTPUT_BYTES // one)
    for start in range(0, len(support), count):
        yield support.part(start, start + count)


def _row(arrays: Mapping[str, NDArray[Any]], row: int) -> dict[str, NDArray[Any]]:
    return {name: array[row : row + 1] for name, array in arrays.items()}
