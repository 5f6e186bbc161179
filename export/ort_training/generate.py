"""ONNX Runtime's own artifact generator, with one step size per layer.

A script of its own: it runs in the environment that has onnxruntime-training (and PyTorch, which that package
imports), whether or not edge-adapt is installed there:

    python generate.py REQUEST OUT

REQUEST holds `forward.onnx` (outputs `loss`, `logits`; every parameter an initializer) and `request.json`:
`layers` (how many), `trained` (parameter to layer index), `frozen` (the other parameters). OUT, a directory,
receives training_model.onnx, eval_model.onnx, optimizer_model.onnx and checkpoint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

STEP_SCALE = "step_scale"
MAX_IR_VERSION = 10
SMALL = 64
MODELS = ("training_model.onnx", "eval_model.onnx", "optimizer_model.onnx")
_ACCUMULATOR = "InPlaceAccumulatorV2"
_NOT_USERS = (".accumulation.buffer", "lazy_reset_grad")


def generate(request: Path, out: Path) -> None:
    """Write the artifacts of one request.

    Raises:
        RuntimeError: ONNX Runtime has no gradient for a node.
    """
    from onnxruntime.training import artifacts

    wanted = json.loads((request / "request.json").read_text())
    artifacts.generate_artifacts(
        onnx.load(request / "forward.onnx"),
        requires_grad=list(wanted["trained"]),
        frozen_params=wanted["frozen"],
        optimizer=artifacts.OptimType.SGD,
        artifact_directory=out,
    )
    for name in MODELS:
        model = onnx.load(out / name)
        if name == MODELS[0]:
            scale_gradients(model, wanted["trained"], wanted["layers"], wanted["frozen"])
        shrink_constants(model)
        model.ir_version = min(model.ir_version, MAX_IR_VERSION)
        onnx.save(model, out / name)


def scale_gradients(
    model: ModelProto, trained: Mapping[str, int], layers: int, frozen: list[str] | None = None
) -> None:
    """Multiply every gradient by its layer's entry of a new input `step_scale` before it is accumulated.

    The accumulators sum and the optimizer knows one learning rate: with learning rate 1 and step_scale
    alpha[k] / N, step sizes of every layer and step, masks and the mean all come in through that input.

    Args:
        model: a generated training model, changed in place.
        trained: parameter to index into `step_scale`.
        layers: length of `step_scale`.
        frozen: parameters that are inputs but not trained.
    """
    graph = model.graph
    scales: list[NodeProto] = []
    used = sorted(set(trained.values()))
    for node in graph.node:
        if node.op_type == _ACCUMULATOR:
            gradient = node.input[1]
            size = f"{STEP_SCALE}::{trained[gradient.removesuffix('_grad')]}"
            node.input[1] = f"{gradient}::scaled"
            scales.append(helper.make_node("Mul", [gradient, size], [node.input[1]], node.input[1]))
    picks = [_pick(index) for index in used]
    nodes: list[Any] = [node for node in graph.node if node.op_type != _ACCUMULATOR]
    accumulators = [node for node in graph.node if node.op_type == _ACCUMULATOR]
    ordered = (*nodes, *picks, *scales, *accumulators)
    _replace(graph.node, [NodeProto.FromString(node.SerializeToString()) for node in ordered])
    graph.initializer.extend(
        helper.make_tensor(f"{STEP_SCALE}::{index}::index", TensorProto.INT64, [], [index]) for index in used
    )
    params = {*trained, *(frozen or ())}
    users = [i for i, item in enumerate(graph.input) if _is_users(item.name, params)]
    graph.input.insert(users[-1] + 1, helper.make_tensor_value_info(STEP_SCALE, TensorProto.FLOAT, [layers]))


def shrink_constants(model: ModelProto) -> None:
    """Write constants of one repeated value as ConstantOfShape: GroupNorm's ones and zeros are as large as maps.

    Args:
        model: changed in place.
    """
    graph = model.graph
    kept, fills = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size > SMALL and (values == values.flat[0]).all():
            shape, value = f"{tensor.name}::shape", numpy_helper.from_array(values.reshape(-1)[:1])
            fills.append(helper.make_node("ConstantOfShape", [shape], [tensor.name], shape, value=value))
            kept.append(helper.make_tensor(shape, TensorProto.INT64, [values.ndim], values.shape))
        else:
            kept.append(TensorProto.FromString(tensor.SerializeToString()))
    _replace(graph.initializer, kept)
    _replace(graph.node, [*fills, *(NodeProto.FromString(n.SerializeToString()) for n in graph.node)])


def _replace(field: Any, items: Sequence[Any]) -> None:
    del field[:]
    field.extend(items)


def _pick(index: int) -> NodeProto:
    name = f"{STEP_SCALE}::{index}"
    return helper.make_node("Gather", [STEP_SCALE, f"{name}::index"], [name], name, axis=0)


def _is_users(name: str, params: set[str]) -> bool:
    return name not in params and not name.endswith(_NOT_USERS)


if __name__ == "__main__":
    try:
        generate(*map(Path, sys.argv[1:]))
    except RuntimeError as error:
        sys.exit(f"error: {str(error).splitlines()[0]}")
