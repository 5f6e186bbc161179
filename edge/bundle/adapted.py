"""The adapted model: a small directory with only what adaptation changed (docs/bundle.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import BundleError, UsageError
from .files import new_directory, read_json, write_json
from .reader import BundleFiles
from .tensors import TensorFile, write_tensors

IDENTITY_FILE = "bundle.sha256"
FILES = frozenset({"delta.safetensors", "classes.json", "report.json", IDENTITY_FILE})


@dataclass(frozen=True)
class Adapted:
    """What adaptation produced.

    Attributes:
        tensors: the changed parameters, full values, by name.
        class_names: in the order of the head's outputs; may be fewer than the head has; none where the loss
            knows no classes.
        report: what `run --json` prints.
        identity: of the bundle the model belongs to.
    """

    tensors: Mapping[str, NDArray[Any]]
    class_names: tuple[str, ...]
    report: Mapping[str, Any]
    identity: str


def check_target(path: Path) -> None:
    """Raise UsageError if `path` is something that writing an adapted model would destroy."""
    if path.is_dir():
        present = {entry.name for entry in path.iterdir()}
        if not present or (IDENTITY_FILE in present and present <= FILES):
            return
        raise UsageError(f"{path}: exists and is not an adapted model; name another directory or remove it")
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path}: exists and is not a directory; name another one")


def write_adapted(path: Path, adapted: Adapted) -> None:
    """Write the directory whole or not at all; an adapted model that was there is replaced.

    Raises:
        UsageError: `path` exists and is not an adapted model.
        EdgeAdaptError: `path` cannot be written; nothing is left behind.
    """
    check_target(path)
    with new_directory(path, sum(value.nbytes for value in adapted.tensors.values())) as directory:
        write_tensors(directory / "delta.safetensors", adapted.tensors)
        write_json(directory / "classes.json", list(adapted.class_names))
        write_json(directory / "report.json", dict(adapted.report))
        (directory / IDENTITY_FILE).write_text(adapted.identity + "\n")


def read_adapted(path: Path, bundle: BundleFiles) -> Adapted:
    """Read an adapted model and check that it belongs to `bundle` and fits it.

    Raises:
        BundleError: naming the file, what was expected, what was found and what to do.
    """
    identity_file = path / IDENTITY_FILE
    if not identity_file.is_file():
        raise BundleError(
            f"{path}: not an adapted model (no {IDENTITY_FILE}); write one with `edge-adapt run`"
        )
    identity = identity_file.read_text(errors="replace").strip()
    if identity != bundle.identity:
        raise BundleError(
            f"{path}: belongs to bundle {identity[:12]}..., but {bundle.path} is {bundle.identity[:12]}...;"
            " name the bundle it was adapted from"
        )
    delta = TensorFile.open(path / "delta.safetensors")
    for name in delta.entries:
        _check_changed(delta, name, bundle)
    needed = bundle.program.layers if bundle.streams is not None else ()
    for name in (name for layer in needed for name in layer.params):
        _check_changed(delta, name, bundle)
    allowed = range(1, bundle.manifest.classes + 1) if bundle.loss.classifies else range(1)
    classes = _read_classes(path / "classes.json", allowed)
    tensors = {name: delta.copy(name) for name in delta.entries}
    return Adapted(tensors, classes, read_json(path / "report.json"), identity)


def _check_changed(delta: TensorFile, name: str, bundle: BundleFiles) -> None:
    tensor = bundle.program.tensors.get(name)
    if tensor is None or tensor.role != "param":
        raise BundleError(f"{delta.path}: tensor {name!r} is no parameter of {bundle.path}; adapt again")
    delta.require(name, tensor.concrete(0), tensor.dtype)


def _read_classes(path: Path, allowed: range) -> tuple[str, ...]:
    try:
        names = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); adapt again") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BundleError(f"{path}: expected a list of class names; adapt again")
    if len(names) not in allowed:
        counts = " to ".join(str(count) for count in sorted({allowed[0], allowed[-1]}))
        raise BundleError(f"{path}: expected {counts} class names, got {len(names)}; adapt again")
    return tuple(names)
