"""Generate artifacts and run one training step. Runs in the environment with onnxruntime-training.

    python ort_training_script.py generate.py REQUESTS

REQUESTS holds one folder per request, as export/ort_training/generate.py reads it, with `task.npz`: the model's
inputs by name. Each receives `result.npz` (loss, logits, `grad::P`, and `ir` versions of the three models) or
`error.txt`.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.capi import _pybind_state as binding


def run(folder, task):
    """One accumulated training step on one batch."""
    state = binding.load_checkpoint(str(folder / "checkpoint"))
    device = binding.OrtDevice(binding.OrtDevice.cpu(), binding.OrtDevice.default_memory(), 0)
    paths = [str(folder / name) for name in ("training_model.onnx", "eval_model.onnx")]
    module = binding.Module(paths[0], state, paths[1], device, binding.SessionOptions())
    fetches = binding.OrtValueVector()
    module.train_step([task[name] for name in module.input_names(True)], fetches)
    result = {"loss": fetches[0].numpy(), "logits": fetches[1].numpy()}
    for name in state.parameter_names():
        parameter = state.get_parameter(name)
        if parameter.requires_grad:
            result[f"grad::{name}"] = parameter.grad.numpy()
    return result


def main(generator, requests):
    """Every request, one after the other."""
    spec = importlib.util.spec_from_file_location("generate", generator)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for request in sorted(Path(requests).iterdir()):
        out = request / "out"
        out.mkdir()
        try:
            module.generate(request, out)
            result = run(out, dict(np.load(request / "task.npz")))
        except Exception as error:  # reported by the test of this request
            (request / "error.txt").write_text(f"{type(error).__name__}: {error}")
            continue
        result["ir"] = np.array([onnx.load(out / name).ir_version for name in module.MODELS])
        np.savez(request / "result.npz", **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
