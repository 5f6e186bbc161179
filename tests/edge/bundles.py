"""A small bundle for tests: a hand-built program and random weights, written after docs/bundle.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from edge_adapt.edge.inputs import Spec
from edge_adapt.edge.program import Program, program_to_json
from edge_adapt.edge.reference.interpret import interpret
from numpy.typing import NDArray
from safetensors.numpy import save_file

from .programs import Net, conv_program, random_support, random_weights

NET = Net(size=12, channels=8, blocks=2, classes=5, rho=0.3, steps=3)
SAMPLES = 10
Arrays = Mapping[str, NDArray[Any]]


def write_bundle(path: Path, net: Net = NET, step_size: float = 0.1, seed: int = 0) -> Path:
    """Write the bundle of a convolutional classifier of images."""
    program = conv_program(net)
    weights = random_weights(program, seed, step_size).tensors
    support = random_support(net, samples=4, seed=7)
    test = self_test(program, weights, support.spec, support.images, {"labels": support.labels})
    fields = {"name": "tiny-conv", "loss": "softmax-cross-entropy", "input": support.spec.to_json()}
    return write_files(path, program, weights, test, fields)


def write_files(
    path: Path, program: Program, weights: Arrays, test: Arrays, fields: Mapping[str, object]
) -> Path:
    """Write a bundle directory; `fields` are name, loss and input of its manifest."""
    path.mkdir(parents=True)
    (path / "program.json").write_text(json.dumps(program_to_json(program)))
    save_file(dict(weights), path / "weights.safetensors")
    save_file(dict(test), path / "selftest.safetensors")
    manifest = {**_manifest(path, program), **fields}
    (path / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return path


def rewrite_manifest(path: Path, **changes: Any) -> None:
    """Change fields of a bundle's manifest and bring its checksums up to date."""
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"] = _checksums(path)
    manifest.update(changes)
    (path / "manifest.json").write_text(json.dumps(manifest))


def support_arrays(
    net: Net = NET, samples: int = SAMPLES, classes: int | None = None, seed: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images uint8 (n, H, W, C) and integer labels that the bundle can learn."""
    support = random_support(net, samples, classes, seed)
    return support.images, support.labels


def write_npz(path: Path, **arrays: Any) -> Path:
    """Save arrays as an .npz."""
    np.savez(path, **arrays)
    return path


def self_test(
    program: Program, weights: Arrays, spec: Spec, samples: NDArray[Any], given: Arrays
) -> dict[str, NDArray[Any]]:
    """Return the tensors of a self-test, computed in float64 by the plainest interpreter."""
    values = {
        **weights,
        **given,
        "images": spec.preprocess(samples),
        "sample_weight": np.full(len(samples), 1 / len(samples)),
    }
    if "class_mask" in program.tensors:
        values["class_mask"] = np.ones(program.tensors["class_mask"].shape)
    grads = {grad: p for layer in program.layers for p, grad in zip(layer.params, layer.grads, strict=True)}
    found = interpret(program, values, ["loss", *grads], np.float64)
    test: dict[str, NDArray[Any]] = {
        "images": samples,
        **given,
        "alpha_mask": np.ones(len(program.layers), np.uint8),
        "loss": found["loss"].reshape(1).astype(np.float32),
    }
    for grad, param in grads.items():
        flat = found[grad].reshape(-1)
        count = min(64, len(flat))
        test[f"norm::{param}"] = np.array([np.linalg.norm(flat)], np.float32)
        test[f"entries::{param}"] = flat[np.arange(count) * len(flat) // count].astype(np.float32)
    return test


def _manifest(path: Path, program: Program) -> dict[str, Any]:
    words = {
        layer.name: sum(int(np.prod(program.tensors[name].concrete(1))) for name in layer.params)
        for layer in program.layers
    }
    return {
        "format": 1,
        "kind": "gradient",
        "classes": program.tensors["logits"].shape[-1],
        "steps": program.steps,
        "samples": SAMPLES,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "weight_words": words[layer.name],
                "input_words": 1,
                "macs": 1,
                "cap": None,
                "benefit": None,
            }
            for layer in program.layers
        ],
        "files": _checksums(path),
        "provenance": {"recipe": "by hand", "seed": 0},
    }


def _checksums(path: Path) -> dict[str, str]:
    files = sorted(file for file in path.iterdir() if file.name != "manifest.json")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
