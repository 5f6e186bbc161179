"""Predict the samples of a folder or .npz with an adapted model, measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engines import engine_named
from .engines.planned import PlannedEngine
from .inputs import QuerySet, read_query
from .lower import lower_predict
from .measure import PeakMeter
from .plan.plan import arena_layout
from .process import give_back_freed_memory, warm_up
from .session import AdaptedModel


def predict_path(model: AdaptedModel, path: Path) -> dict[str, Any]:
    """Return what `edge-adapt predict --json` prints: class and confidence of every sample, or its outputs.

    `accuracy` is null where the input does not name the true classes; `dynamic_bytes` is the arena, null for
    engines that have none; measured bytes are null where they cannot be measured.

    Raises:
        SupportError: samples that cannot be read or do not fit the model.
    """
    files = model.bundle.files
    warm_up()
    start = time.perf_counter()
    with PeakMeter() as meter:
        query = read_query(path, files.manifest.input)
        give_back_freed_memory()
        answers = model.predict_samples(query)
    rows = _classes(model, query, answers) if files.loss.classifies else _outputs(query, answers)
    hits = [row["class"] == row["label"] for row in rows if "label" in row]
    return {
        "predictions": rows,
        "samples": len(rows),
        "accuracy": sum(hits) / len(hits) if hits else None,
        "classes": list(model.class_names),
        "converted": list(query.converted),
        "seconds": time.perf_counter() - start,
        "dynamic_bytes": _dynamic_bytes(model),
        "baseline_bytes": meter.baseline_bytes,
        "measured_peak_bytes": meter.peak_bytes,
        "process_peak_bytes": meter.process_peak_bytes,
        "engine": model.engine,
        "threads": model.threads,
        "bundle": {"name": files.manifest.name, "sha256": files.identity},
    }


def _dynamic_bytes(model: AdaptedModel) -> int | None:
    """Return the arena of predicting one sample at a time."""
    files = model.bundle.files
    engine = engine_named(model.engine, files.path, model.threads)
    if not isinstance(engine, PlannedEngine):
        return None
    return arena_layout(lower_predict(files.program, 1, engine.target).programs[0])[1]


def _classes(model: AdaptedModel, query: QuerySet, chances: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return file, class and confidence of every sample, and its label where the input tells."""
    best = chances.argmax(axis=1)
    rows: list[dict[str, Any]] = [
        {"file": file, "class": model.class_names[index], "confidence": float(row[index])}
        for file, row, index in zip(query.names, chances, best, strict=True)
    ]
    for row, label in zip(rows, query.labels or (), strict=False):
        row["label"] = label
    return rows


def _outputs(query: QuerySet, outputs: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return file and outputs of every sample."""
    return [{"file": file, "outputs": row.tolist()} for file, row in zip(query.names, outputs, strict=True)]
