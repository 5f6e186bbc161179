"""Engines by name; one whose package is not installed says what to install."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import UsageError
from .base import Engine
from .onnxruntime import OnnxRuntimeEngine
from .ort_training import OrtTrainingEngine
from .reference import ReferenceEngine

ENGINES: Mapping[str, Callable[[Path], Engine]] = {
    "reference": lambda directory: ReferenceEngine(),
    "onnxruntime": OnnxRuntimeEngine,
    "ort-training": OrtTrainingEngine,
}


def engine_named(name: str, directory: Path) -> Engine:
    """Return an engine for the bundle in `directory`.

    Raises:
        UsageError: the name is not known, or the engine's package is not installed.
        BundleError: the bundle has no file that this engine needs.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is not known, expected one of: {', '.join(ENGINES)}")
    return ENGINES[name](directory)
