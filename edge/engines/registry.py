"""Engines by name; one that cannot run here says what to install."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

from ..errors import UsageError
from ..native import available
from .base import Engine
from .native import MOST_THREADS, NativeEngine
from .onnxruntime import OnnxRuntimeEngine
from .ort_training import OrtTrainingEngine
from .reference import ReferenceEngine

ENGINES: Mapping[str, Callable[[Path, int], Engine]] = {
    "native": lambda directory, threads: NativeEngine(threads),
    "reference": lambda directory, threads: ReferenceEngine(),
    "onnxruntime": lambda directory, threads: OnnxRuntimeEngine(directory),
    "ort-training": lambda directory, threads: OrtTrainingEngine(directory),
}
DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-training-cpu"),
    "ort-training": ("onnxruntime-training-cpu",),
}
"""Any one of these must be installed for an engine; the others need nothing more."""


def installed_engines() -> list[str]:
    """Return the names of the engines that can run here."""
    return [name for name in ENGINES if _can_run(name)]


def default_engine() -> str:
    """Return the engine that is used where none is named: the native one where its kernels were compiled."""
    return "native" if available() else "reference"


def _can_run(name: str) -> bool:
    if name == "native":
        return available()
    return name not in DISTRIBUTIONS or any(map(_installed, DISTRIBUTIONS[name]))


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def engine_named(name: str, directory: Path, threads: int = 1) -> Engine:
    """Return an engine for the bundle in `directory`.

    Args:
        name: one of `ENGINES`.
        directory: the bundle.
        threads: how many the native engine uses; the reference engine always uses one, the ONNX Runtime engines as
            many as OMP_NUM_THREADS says.

    Raises:
        UsageError: the name is not known, the engine's package is not installed, or no such number of threads.
        NotBuiltError: the native kernels were not compiled for this machine.
        BundleError: the bundle has no file that this engine needs.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name!r} is not known, expected one of: {', '.join(ENGINES)}")
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads: expected 1 to {MOST_THREADS}, got {threads}")
    return ENGINES[name](directory, threads)
