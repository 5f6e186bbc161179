"""Two dense layers on arrays, with each of the losses: programs, samples and bundles for tests."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from edge_adapt.edge.inputs import ArraySpec
from edge_adapt.edge.losses import LOSSES
from edge_adapt.edge.program import Program, check_program
from numpy.typing import NDArray

from .bundles import self_test, write_files
from .programs import Builder, random_weights

HIDDEN, STEPS, SAMPLES = 6, 3, 10
Given = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """What a network on arrays learns: the loss, its input, and the shape of one sample's outputs."""

    loss: str
    spec: ArraySpec
    outputs: tuple[int, ...]


MOTION = ArraySpec((3, 8), mean=(0.5, 0.0, -0.5), std=(2.0, 1.0, 0.5))
TASKS = {
    "classes": Task("softmax-cross-entropy", MOTION, (4,)),
    "numbers": Task("mean-squared-error", ArraySpec((5,)), (2,)),
    "maps": Task("mean-squared-error", ArraySpec((1, 4, 6), mean=(0.1,), std=(0.9,)), (2, 3)),
    "choices": Task("categorical-policy-gradient", ArraySpec((5,)), (3,)),
    "choices over time": Task("categorical-policy-gradient", ArraySpec((4, 5)), (4, 3)),
    "motors": Task("gaussian-policy-gradient", ArraySpec((5,)), (2,)),
    "motors over time": Task("gaussian-policy-gradient", ArraySpec((4, 5)), (4, 2)),
}


def dense_program(task: Task) -> Program:
    """Build outputs = fc2(relu(fc1(flat input))), its loss and its gradients."""
    b = Builder()
    gaussian = task.loss == "gaussian-policy-gradient"
    b.tensor("alpha", (STEPS, 3 if gaussian else 2), "step-size")
    b.tensor("images", ("N", *task.spec.shape), "input")
    b.tensor("sample_weight", ("N",), "input")
    b.op("forward", "Reshape", ["images"], [b.tensor("flat", ("N", prod(task.spec.shape)))])
    x = _dense(b, "fc1", "flat", HIDDEN)
    b.op("forward", "Relu", [x], [b.like("r", x), b.tensor("mask", ("N", HIDDEN), "saved", "bit1")])
    y = _dense(b, "fc2", "r", prod(task.outputs))
    b.op("forward", "Reshape", [y], [b.tensor("logits", ("N", *task.outputs))])
    inputs = _loss(b, task, gaussian)
    b.op("backward", "Reshape", ["g::logits"], [b.like("g::y::fc2", y)])
    b.op("backward", "FcInputGrad", ["g::y::fc2", "fc2.weight"], [b.like("g::r", "r")], "fc2")
    b.op("backward", "MaskGrad", ["g::r", "mask"], [b.like("g::y::fc1", x)], inside=1.0, outside=0.0)
    for name, source in (("fc2", "r"), ("fc1", "flat")):
        gy = [f"g::y::{name}", "sample_weight"]
        b.op("backward", "FcWeightGrad", [source, *gy], [f"grad::{name}.weight"], name)
        b.op("backward", "BiasGrad", gy, [f"grad::{name}.bias"], name, axis=-1)
    sections = {name: tuple(ops) for name, ops in b.sections.items()}
    parts = {name: name for name in ("images", "sample_weight", *inputs)}
    outputs = {"logits": "logits", "loss": "loss"}
    program = Program(b.tensors, sections, tuple(b.layers), parts, outputs, STEPS)
    check_program(program)
    return program


def _dense(b: Builder, name: str, x: str, width: int) -> str:
    b.layer(name, "fc", {"weight": (width, int(b.tensors[x].shape[1])), "bias": (width,)})
    y = b.tensor(f"y::{name}", ("N", width))
    b.op("forward", "Fc", [x, f"{name}.weight", f"{name}.bias"], [y], name)
    return y


def _loss(b: Builder, task: Task, gaussian: bool) -> tuple[str, ...]:
    loss = LOSSES[task.loss]
    for name, values in answers(task, 1).items():
        b.tensor(name, ("N", *values.shape[1:]), "input", str(values.dtype))
    if loss.classifies:
        b.tensor("class_mask", (task.outputs[-1],), "input")
    if gaussian:
        b.layer("policy", "log-std", {"log_std": (task.outputs[-1],)})
    learned = ["policy.log_std"] if gaussian else []
    rest = [*loss.parts, "sample_weight"]
    b.tensor("loss", ())
    b.like("g::logits", "logits")
    masks = ["class_mask"] if loss.classifies else []
    b.op("loss", loss.operation, ["logits", *learned, *rest, *masks], ["loss", "g::logits"])
    if gaussian:
        b.op(
            "backward", "GaussianLogStdGrad", ["logits", *learned, *rest], ["grad::policy.log_std"], "policy"
        )
    return (*loss.parts, *masks)


def samples(task: Task, count: int = SAMPLES, seed: int = 1) -> NDArray[np.float32]:
    """Draw float32 samples, not preprocessed."""
    return np.random.default_rng(seed).normal(size=(count, *task.spec.shape)).astype(np.float32)


def answers(task: Task, count: int = SAMPLES, seed: int = 2) -> Given:
    """Draw what the loss needs to know of every sample."""
    rng = np.random.default_rng(seed)
    *each, last = task.outputs
    numbers = rng.normal(size=(count, *each, last)).astype(np.float32)
    advantages = rng.normal(size=(count, *each)).astype(np.float32)
    choices = rng.integers(0, last, (count, *each))
    return {
        "softmax-cross-entropy": {"labels": np.arange(count, dtype=np.int64) % last},
        "mean-squared-error": {"targets": numbers},
        "categorical-policy-gradient": {"actions": choices, "advantages": advantages},
        "gaussian-policy-gradient": {"actions": numbers, "advantages": advantages},
    }[task.loss]


def dense_weights(task: Task, step_size: float = 0.05, seed: int = 0) -> Given:
    """Draw parameters; every step size is `step_size`."""
    weights = random_weights(dense_program(task), seed, step_size).tensors
    if "policy.log_std" in weights:
        weights["policy.log_std"] = np.linspace(0, 0.5, task.outputs[-1]).astype(np.float32)
    return weights


def write_dense_bundle(path: Path, task: Task, step_size: float = 0.05) -> Path:
    """Write the bundle of a task."""
    program, weights = dense_program(task), dense_weights(task, step_size)
    test = self_test(program, weights, task.spec, samples(task, 4, 7), answers(task, 4, 8))
    fields = {"name": "tiny-dense", "loss": task.loss, "input": task.spec.to_json()}
    return write_files(path, program, weights, test, fields)
