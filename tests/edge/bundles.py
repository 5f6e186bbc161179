"""A small bundle for tests: a hand-built program and random weights, written after docs/bundle.md."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from edge_adapt.edge.program import Program, program_to_json
from edge_adapt.edge.reference.interpret import interpret
from numpy.typing import NDArray
from safetensors.numpy import save_file

from .programs import Net, conv_program, random_support, random_weights

NET = Net(size=12, channels=8, blocks=2, classes=5, rho=0.3, steps=3)
SAMPLES = 10


def write_bundle(path: Path, net: Net = NET, step_size: float = 0.1, seed: int = 0) -> Path:
    """Write a bundle directory; its self-test is computed in float64 by the plainest interpreter."""
    program = conv_program(net)
    weights = random_weights(program, seed, step_size).tensors
    path.mkdir(parents=True)
    (path / "program.json").write_text(json.dumps(program_to_json(program)))
    save_file(weights, path / "weights.safetensors")
    save_file(_self_test(program, weights, net), path / "selftest.safetensors")
    (path / "manifest.json").write_text(json.dumps(_manifest(path, program, net), indent=1))
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


def _self_test(program: Program, weights: dict[str, Any], net: Net) -> dict[str, NDArray[Any]]:
    support = random_support(net, samples=4, seed=7)
    values = {
        **weights,
        "images": support.spec.preprocess(support.images),
        "labels": support.labels,
        "sample_weight": np.full(4, 0.25),
        "class_mask": np.ones(net.classes),
    }
    grads = {grad: p for layer in program.layers for p, grad in zip(layer.params, layer.grads, strict=True)}
    found = interpret(program, values, ["loss", *grads], np.float64)
    test: dict[str, NDArray[Any]] = {
        "images": support.images,
        "labels": support.labels,
        "alpha_mask": np.ones(len(program.layers), np.uint8),
        "loss": found["loss"].astype(np.float32),
    }
    for grad, param in grads.items():
        flat = found[grad].reshape(-1)
        count = min(64, len(flat))
        test[f"norm::{param}"] = np.array([np.linalg.norm(flat)], np.float32)
        test[f"entries::{param}"] = flat[np.arange(count) * len(flat) // count].astype(np.float32)
    return test


def _manifest(path: Path, program: Program, net: Net) -> dict[str, Any]:
    words = {
        layer.name: sum(int(np.prod(program.tensors[name].concrete(1))) for name in layer.params)
        for layer in program.layers
    }
    return {
        "format": 1,
        "kind": "gradient",
        "name": "tiny-conv",
        "loss": "softmax-cross-entropy",
        "input": random_support(net).spec.to_json(),
        "classes": net.classes,
        "steps": net.steps,
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
