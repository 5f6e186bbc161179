"""Adapt with a training.onnx in onnxruntime. Needs numpy and onnxruntime only: any release can run it.

    python ort_script.py training.onnx task.npz result.npz

task.npz: images (n, C, H, W), labels (n,), class_mask (classes,), query (m, C, H, W), micro_batches (j,);
per parameter P `param::P` (its initial value) and `alpha::P` (K,); where the model has such inputs
`keep::LAYER::SIDE` (K, n, C). result.npz: for every micro-batch size b `b|logits` (m, classes), `b|loss` (K,)
and `b|P` for every parameter.
"""

import sys

import numpy as np
import onnxruntime


def adapt(session, task, micro_batch):
    """Run K steps of accumulated mean gradients and return the adapted parameters and the losses."""
    params = {name[len("param::") :]: task[name] for name in task if name.startswith("param::")}
    gradients = ["grad::" + name for name in params]
    count, losses = len(task["images"]), []
    for step in range(len(next(task[name] for name in task if name.startswith("alpha::")))):
        totals, loss = {name: np.zeros_like(value) for name, value in params.items()}, 0.0
        for start in range(0, count, micro_batch):
            part = slice(start, start + micro_batch)
            feeds = {
                "images": task["images"][part],
                "labels": task["labels"][part],
                "class_mask": task["class_mask"],
            }
            feeds["sample_weight"] = np.full(len(feeds["labels"]), 1 / count, np.float32)
            feeds.update({name: task[name][step][part] for name in task if name.startswith("keep::")})
            found = session.run(["loss", *gradients], {**feeds, **params})
            loss += found[0]
            for name, gradient in zip(params, found[1:], strict=True):
                totals[name] += gradient
        losses.append(loss)
        params = {name: value - task["alpha::" + name][step] * totals[name] for name, value in params.items()}
    return params, np.array(losses)


def predict(session, task, params):
    """Logits of the query images under the adapted parameters."""
    count = len(task["query"])
    feeds = {"images": task["query"], "labels": np.zeros(count, np.int64), "class_mask": task["class_mask"]}
    feeds["sample_weight"] = np.ones(count, np.float32)
    for item in session.get_inputs():
        if item.name.startswith("keep::"):
            feeds[item.name] = np.ones((count, item.shape[1]), np.float32)
    return session.run(["logits"], {**feeds, **params})[0]


def main(model, task_path, result_path):
    """Adapt with every micro-batch size and write what came out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    task = dict(np.load(task_path))
    result = {"version": np.array(onnxruntime.__version__)}
    for micro_batch in task["micro_batches"].tolist():
        params, losses = adapt(session, task, micro_batch)
        result[f"{micro_batch}|loss"] = losses
        result[f"{micro_batch}|logits"] = predict(session, task, params)
        result.update({f"{micro_batch}|{name}": value for name, value in params.items()})
    np.savez(result_path, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
