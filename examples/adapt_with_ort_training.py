"""Adapt a bundle with ONNX Runtime training 1.19.2 on its ort_training/ artifacts: NumPy and that package only.

    python examples/adapt_with_ort_training.py bundle/ support.npz adapted_checkpoint

support.npz: images uint8 (n, H, W, C), labels int (n,), 0 to classes - 1. Writes the adapted checkpoint; prints
the loss before every step and after the last one.

The calls are those of the C, C++, C#, Java and Swift interfaces (TrainStep, OptimizerStep, LazyResetGrad). What
is particular to these artifacts is one input, step_scale: alpha[step, layer] / n for every layer, with learning
rate 1. A zero freezes a layer. `loss` is the sum over the micro-batch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

# Where PyTorch is installed, `import onnxruntime` would load it by way of this module, which is not needed.
sys.modules["onnxruntime.training.ortmodule"] = None  # type: ignore[assignment]
from onnxruntime.capi import _pybind_state as ort  # noqa: E402

MICRO_BATCH = 5


def read_alpha(path: Path) -> np.ndarray:
    """Read the step sizes (K, L) from a .safetensors file: header length (8 bytes), header (JSON), bytes."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    item = json.loads(raw[8:start])["alpha"]
    return np.frombuffer(raw[start:][slice(*item["data_offsets"])], "<f4").reshape(item["shape"])


def preprocess(images: np.ndarray, spec: dict[str, Any]) -> np.ndarray:
    """(value / 255 - mean) / std by channel, then channels first."""
    values = (images.astype(np.float32) / 255 - np.float32(spec["mean"])) / np.float32(spec["std"])
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def main(bundle: Path, support: Path, out: Path) -> None:
    """K steps; every step sums the scaled gradients of its micro-batches."""
    manifest, data = json.loads((bundle / "manifest.json").read_text()), np.load(support)
    images, labels = preprocess(data["images"], manifest["input"]), data["labels"].astype(np.int64)
    class_mask = (np.arange(manifest["classes"]) <= labels.max()).astype(np.float32)
    alpha, folder = read_alpha(bundle / "weights.safetensors"), bundle / "ort_training"

    state = ort.load_checkpoint(str(folder / "checkpoint"))
    cpu = ort.OrtDevice(ort.OrtDevice.cpu(), ort.OrtDevice.default_memory(), 0)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    models = [str(folder / f"{name}_model.onnx") for name in ("training", "eval", "optimizer")]
    module = ort.Module(models[0], state, models[1], cpu, options)
    optimizer = ort.Optimizer(models[2], state, cpu, options)
    optimizer.set_learning_rate(1.0)

    def run(step: Any, *more: np.ndarray) -> float:
        """Return the mean loss; a training step also adds up the gradients."""
        total = 0.0
        for start in range(0, len(images), MICRO_BATCH):
            part, fetches = slice(start, start + MICRO_BATCH), ort.OrtValueVector()
            step([images[part], labels[part], class_mask, *more], fetches)
            total += float(fetches[0].numpy())
        return total / len(images)

    losses = []
    for row in alpha:
        losses.append(run(module.train_step, row / np.float32(len(images))))
        optimizer.optimizer_step()
        module.lazy_reset_grad()
    losses.append(run(module.eval_step))
    ort.save_checkpoint(state, str(out), False)
    print(json.dumps({"losses": losses}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
