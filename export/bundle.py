"""The writer of a bundle directory (docs/bundle.md): whole, or not at all."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from ..edge.bundle import Manifest, TensorFile, write_tensors
from ..edge.bundle.files import new_directory, read_json, sha256_of, write_json
from ..edge.errors import EdgeAdaptError, UsageError
from ..edge.program import Program, program_to_json
from ..edge.writing import check_writable
from .adaptation import adaptation, tensors
from .layer_table import layer_table
from .onnx_graph import External, eval_graph, training_graph
from .ort_training import check_expressible, python_with_ort_training, write_artifacts
from .selftest import selftest
from .source import Source

MANIFEST, WEIGHTS, ORT_TRAINING = "manifest.json", "weights.safetensors", "ort_training"
PACKAGES = ("edge-adapt", "torch", "onnx")


def write_bundle(source: Source, path: Path, *, ort_training: bool = False) -> None:
    """Write the bundle of a source; a bundle that was there is replaced.

    Args:
        source: what the bundle is made from.
        path: the directory to write.
        ort_training: also write the artifacts of ONNX Runtime training.

    Raises:
        ExportError: the model cannot be exported; nothing is written.
        UsageError: `path` exists and is not a bundle, or onnxruntime-training is wanted and not found.
    """
    check_target(path)
    program = adaptation(source)
    if ort_training:
        check_expressible(program)
        python_with_ort_training()
    values = tensors(source, program)
    test = selftest(source)
    size = sum(value.nbytes for value in values.values())
    with new_directory(path, size) as directory:
        write_tensors(directory / WEIGHTS, values)
        write_tensors(directory / "selftest.safetensors", test)
        write_json(directory / "program.json", program_to_json(program))
        places = external(directory / WEIGHTS)
        write_model(directory / "eval.onnx", eval_graph(program, places))
        write_model(directory / "training.onnx", training_graph(program, places, source.updated_layers))
        if ort_training:
            artifacts = directory / ORT_TRAINING
            artifacts.mkdir()
            write_artifacts(program, values, source.updated_layers, artifacts)
        written = sorted(file for file in directory.rglob("*") if file.is_file())
        files = {file.relative_to(directory).as_posix(): sha256_of(file) for file in written}
        write_json(directory / MANIFEST, _manifest(source, program, files).to_json())


def check_target(path: Path) -> None:
    """Raise UsageError if `path` holds anything that writing a bundle would destroy, EdgeAdaptError if it cannot be."""
    check_writable(path)
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir():
        raise UsageError(f"{path}: exists and is not a directory; name another one")
    present = {entry.name for entry in path.iterdir()}
    if present and not present <= _listed(path):
        raise UsageError(f"{path}: exists and is not a bundle; name another directory or remove it")


def _listed(path: Path) -> set[str]:
    """Names that belong to the bundle at `path`; empty if it is none."""
    try:
        manifest = read_json(path / MANIFEST)
        tops = (name.split("/")[0] for name in manifest["files"])
        return {MANIFEST, *tops} if "format" in manifest else set()
    except (EdgeAdaptError, KeyError, TypeError):
        return set()


def external(weights: Path) -> dict[str, External]:
    """Where every tensor lies in a .safetensors file, for ONNX files in the same directory."""
    entries = TensorFile.open(weights).entries
    return {name: External(weights.name, entry.offset, entry.size_bytes) for name, entry in entries.items()}


def write_model(path: Path, model: ModelProto) -> None:
    """Write an ONNX file and have it checked."""
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)


def _manifest(source: Source, program: Program, files: dict[str, str]) -> Manifest:
    return Manifest(
        kind="gradient",
        name=source.name,
        loss=source.loss,
        input=source.input,
        classes=source.captured.output_shape[-1],
        steps=program.steps,
        samples=source.samples,
        layers=layer_table(source, program),
        files=files,
        provenance={**source.provenance, "export_versions": versions()},
    )


def versions() -> dict[str, Any]:
    """Versions of what made a bundle."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
