"""Generate artifacts and adapt with them. Runs in the environment with onnxruntime-training.

    python zoo_ort_training.py generate.py HOME

HOME holds one folder per model: a request as export/ort_training/generate.py reads it, `bundle`, and `task.npz`
(x, y, query). Each receives `logits.npy`, the adapted model's query logits, or `error.txt`.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
from edge_adapt.edge import Bundle


def main(generator, home):
    """Every model, one after the other."""
    spec = importlib.util.spec_from_file_location("generate", generator)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for folder in sorted(Path(home).iterdir()):
        artifacts, task = folder / "bundle" / "ort_training", np.load(folder / "task.npz")
        artifacts.mkdir()
        try:
            module.generate(folder, artifacts)
            bundle = Bundle.open(folder / "bundle")
            model = bundle.adapt(task["x"], task["y"], engine="ort-training")
            np.save(folder / "logits.npy", model.logits(task["query"]))
        except Exception as error:  # reported by the test of this model
            (folder / "error.txt").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
