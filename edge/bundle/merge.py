"""Write an adapted model as an ordinary ONNX model by copying two files and overwriting bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from ..errors import UsageError
from .adapted import Adapted
from .files import new_directory, write_json
from .reader import BundleFiles

WEIGHTS_FILE = "weights.safetensors"
FILES = frozenset({"model.onnx", WEIGHTS_FILE, "classes.json"})


def merge(bundle: BundleFiles, adapted: Adapted, target: Path) -> None:
    """Write `model.onnx` and its external weights, with the adapted values in place of the original ones.

    `eval.onnx` names its weights by file and byte range, so only those bytes change.

    Raises:
        BundleError: the bundle has no eval.onnx.
        UsageError: `target` exists and was not written by `merge`.
        EdgeAdaptError: `target` cannot be written; nothing is left behind.
    """
    graph, weights = bundle.file("eval.onnx"), bundle.file(WEIGHTS_FILE)
    if target.exists() and not (target.is_dir() and {entry.name for entry in target.iterdir()} <= FILES):
        raise UsageError(f"{target}: exists and is not a merged model; name another directory or remove it")
    with new_directory(target, graph.stat().st_size + weights.stat().st_size) as directory:
        shutil.copyfile(graph, directory / "model.onnx")
        shutil.copyfile(weights, directory / WEIGHTS_FILE)
        with (directory / WEIGHTS_FILE).open("r+b") as file:
            for name, value in adapted.tensors.items():
                file.seek(bundle.weights.entries[name].offset)
                file.write(np.ascontiguousarray(value).data)
        write_json(directory / "classes.json", list(adapted.class_names))
