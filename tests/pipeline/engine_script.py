"""Adapt with an engine, at several micro-batches. Runs in any environment that has the engine.

    python engine_script.py BUNDLE task.npz ENGINE result.npz

task.npz: images, labels, query, micro_batches; result.npz: `m|logits` of the query, `m|losses` and `m|P` for
every changed tensor P and micro-batch m, and whether PyTorch was loaded (`torch`).
"""

import sys

import numpy as np
from edge_adapt.edge import Bundle
from edge_adapt.edge.plan import search_plan


def main(path, task_path, engine, result_path):
    """One adaptation for every micro-batch."""
    bundle, task = Bundle.open(path), dict(np.load(task_path))
    alpha, result = bundle.files.weights.copy("alpha"), {}
    for size in task["micro_batches"].tolist():
        plan = search_plan(bundle.files.program, alpha, len(task["images"]), len(alpha), micro_batch=size)
        model = bundle.adapt(task["images"], task["labels"], plan, engine)
        result[f"{size}|logits"] = model.logits(task["query"])
        result[f"{size}|losses"] = np.array(model.report["losses"])
        result.update({f"{size}|{name}": value for name, value in model.adapted.tensors.items()})
    np.savez(result_path, torch="torch" in sys.modules, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
