"""Engines by name; one whose package is not installed says what to install."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
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
DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-training-cpu"),
    "ort-training": ("onnxruntime-training-cpu",),
}
"""Any one of these must be installed for an engine; the others need nothing more."""


def installed_engines() -> list[str]:
    """Return the names of the engines that can run here."""
    return [
        name for name in ENGINES if name not in DISTRIBUTIONS or any(map(_installed, DISTRIBUTIONS[name]))
    ]


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def engine_named(name: str, directory: Path) -> Engine:
    """Return an engine for the bundle in `directory`.

    Raises:
        UsageError: the name is not known, or the engine's package is not installed.
        BundleError: the bundle has no file that this engine needs.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is not known, expected one of: {', '.join(ENGINES)}")
    return ENGINES[name](directory)
