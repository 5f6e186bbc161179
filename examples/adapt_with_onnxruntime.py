"""Adapt a bundle with stock onnxruntime (1.17 or later) on its training.onnx: NumPy and onnxruntime, nothing else.

    python examples/adapt_with_onnxruntime.py bundle/ support.npz adapted.npz

support.npz: images uint8 (n, H, W, C), labels int (n,), 0 to classes - 1. Writes the changed parameters; prints
the loss before every step and after the last one. The same few lines work in any language that has onnxruntime:
feed a micro-batch with sample_weight = 1/n, add up `grad::NAME`, then NAME -= alpha[step, layer] * sum.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

MICRO_BATCH = 5


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Read a .safetensors file of float32 tensors: header length (8 bytes), header (JSON), bytes."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(raw[start:][slice(*item["data_offsets"])], "<f4").reshape(item["shape"])
        for name, item in header.items()
    }


def preprocess(images: np.ndarray, spec: dict[str, Any]) -> np.ndarray:
    """(value / 255 - mean) / std by channel, then channels first."""
    values = (images.astype(np.float32) / 255 - np.float32(spec["mean"])) / np.float32(spec["std"])
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def main(bundle: Path, support: Path, out: Path) -> None:
    """K steps of plain gradient descent with a step size for every layer and step."""
    manifest, program = (
        json.loads((bundle / f"{name}.json").read_text()) for name in ("manifest", "program")
    )
    weights, data = read_weights(bundle / "weights.safetensors"), np.load(support)
    images, labels = preprocess(data["images"], manifest["input"]), data["labels"].astype(np.int64)
    class_mask = (np.arange(manifest["classes"]) <= labels.max()).astype(np.float32)
    alpha = weights["alpha"]
    layers = [layer for layer in program["layers"] if alpha[:, layer["index"]].any()]
    params = {name: weights[name].copy() for layer in layers for name in layer["params"]}
    gradients = [name for layer in layers for name in layer["grads"]]
    index = {name: layer["index"] for layer in layers for name in layer["params"]}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: that parameters are inputs is meant so
    session = onnxruntime.InferenceSession(
        str(bundle / "training.onnx"), options, providers=["CPUExecutionProvider"]
    )

    def run(outputs: list[str]) -> list[np.ndarray]:
        """Sum the outputs over the micro-batches."""
        totals: list[Any] = [0] * len(outputs)
        for start in range(0, len(images), MICRO_BATCH):
            part = slice(start, start + MICRO_BATCH)
            feeds = {"images": images[part], "labels": labels[part], "class_mask": class_mask, **params}
            feeds["sample_weight"] = np.full(len(labels[part]), 1 / len(images), np.float32)
            totals = [total + one for total, one in zip(totals, session.run(outputs, feeds), strict=True)]
        return totals

    losses = []
    for row in alpha:
        loss, *found = run(["loss", *gradients])
        losses.append(float(loss))
        for name, gradient in zip(params, found, strict=True):
            params[name] -= row[index[name]] * gradient
    losses.append(float(run(["loss"])[0]))
    np.savez(out, **params)
    print(json.dumps({"losses": losses}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
