"""The ONNX Runtime training engine: the bundle's `ort_training/` artifacts through the C binding.

The package's Python interface imports PyTorch; its binding, which is all that is used here, does not.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, UsageError
from ..losses import answer_tensors
from ..lower.table import Step
from ..plan.plan import Plan
from ..program import Program
from .base import NO_HOOKS, Adaptation, Array, Hooks, Samples, Support, Weights
from .given import class_mask
from .loop import check_support, run_steps
from .sessions import Feeds, check_uncut, filled, session_options, step_sizes

DIRECTORY = "ort_training"
TRAINING, EVAL, OPTIMIZER, CHECKPOINT = (
    "training_model.onnx",
    "eval_model.onnx",
    "optimizer_model.onnx",
    "checkpoint",
)
STEP_SCALE = "step_scale"
_FRONT_END = "onnxruntime.training.ortmodule"


class OrtTrainingEngine:
    """Runs the artifacts that `export-bundle --ort-training` made; it does not plan memory.

    Raises:
        UsageError: onnxruntime-training is not installed.
        BundleError: the bundle was exported without --ort-training.
    """

    name = "ort-training"
    plans = False

    def __init__(self, directory: Path) -> None:
        self._binding = _binding()
        self._directory = directory / DIRECTORY
        for name in (TRAINING, EVAL, OPTIMIZER, CHECKPOINT):
            if not (self._directory / name).is_file():
                raise BundleError(
                    f"{directory}: the bundle has no {DIRECTORY}/{name}; export it with --ort-training"
                )

    def adapt(
        self,
        program: Program,
        plan: Plan,
        weights: Weights,
        support: Support,
        start_step: int = 0,
        hooks: Hooks = NO_HOOKS,
    ) -> Adaptation:
        """See `Engine.adapt`."""
        check_support(program, plan, support)
        check_uncut(plan, self.name)
        model = self._model(program, weights)
        return run_steps(_Run(Feeds(program, plan, support, hooks), weights, model), plan, start_step, hooks)

    def predict(
        self, program: Program, weights: Weights, samples: Samples, micro_batch: int = 1
    ) -> NDArray[np.float32]:
        """See `Engine.predict`; the eval model computes the loss, too, so labels are fed and ignored."""
        model, inputs = self._model(program, weights), program.inputs
        classes = int(program.tensors[program.outputs["logits"]].shape[-1])
        logits = []
        for start in range(0, len(samples), micro_batch):
            count = min(micro_batch, len(samples) - start)
            feeds = {inputs["images"]: filled(program, samples, start, count)}
            feeds |= {t.name: np.zeros(t.concrete(count), t.dtype) for t in answer_tensors(program).values()}
            feeds |= class_mask(program, classes)
            logits.append(model.evaluate(feeds))
        return np.concatenate(logits)

    def _model(self, program: Program, weights: Weights) -> _Model:
        return _Model(self._binding, self._directory, program, weights)


class _Model:
    """The artifacts, loaded: parameters, their gradients and the optimizer live in ONNX Runtime."""

    def __init__(self, binding: Any, directory: Path, program: Program, weights: Weights) -> None:
        self._binding = binding
        paths = {name: str(directory / name) for name in (TRAINING, EVAL, OPTIMIZER, CHECKPOINT)}
        options = session_options(binding)
        device = binding.OrtDevice(binding.OrtDevice.cpu(), binding.OrtDevice.default_memory(), 0)
        self._device = device
        self._state = binding.load_checkpoint(paths[CHECKPOINT])
        self._module = binding.Module(paths[TRAINING], self._state, paths[EVAL], device, options)
        self._optimizer = binding.Optimizer(paths[OPTIMIZER], self._state, device, options)
        self._optimizer.set_learning_rate(1.0)
        for tensor in program.with_role("param"):
            self._write(tensor.name, weights.mapped(tensor.name))

    def train(self, feeds: dict[str, Array]) -> float:
        """Add the scaled gradients of a micro-batch; return the sum of its samples' losses."""
        return float(np.reshape(self._run(self._module.train_step, True, feeds)[0], -1)[0])

    def evaluate(self, feeds: dict[str, Array]) -> Array:
        """Return the logits of a micro-batch."""
        return self._run(self._module.eval_step, False, feeds)[1]

    def gradient(self, param: str) -> Array:
        """Return what was accumulated for a parameter."""
        return np.asarray(self._state.get_parameter(param).grad.numpy())

    def value(self, param: str) -> Array:
        """Return a parameter's value."""
        return np.asarray(self._state.get_parameter(param).data.numpy())

    def step(self) -> None:
        """Subtract what was accumulated from every trained parameter."""
        self._optimizer.optimizer_step()

    def reset(self) -> None:
        """Let the next micro-batch start a new sum."""
        self._module.lazy_reset_grad()

    def _run(self, step: Any, training: bool, feeds: dict[str, Array]) -> list[Array]:
        fetches = self._binding.OrtValueVector()
        step([feeds[name] for name in self._module.input_names(training)], fetches)
        return [fetches[index].numpy() for index in range(2)]

    def _write(self, name: str, value: Array) -> None:
        if self._state.has_parameter(name):
            kept = np.ascontiguousarray(value)  # the binding reads its memory and does not keep it alive
            self._state.copy_parameter_from(
                name, self._binding.OrtValue.ortvalue_from_numpy(kept, self._device)
            )


@dataclass
class _Run:
    """One adaptation in progress; `updated` are copies of what ONNX Runtime holds, after every step."""

    feeds: Feeds
    weights: Weights
    model: _Model
    updated: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        ever = {name for step in self.feeds.plan.layers for name in step}
        layers = [layer for layer in self.feeds.program.layers if layer.name in ever]
        self.updated = {param: self.weights.copy(param) for layer in layers for param in layer.params}

    def gradients(self, step: int) -> float:
        """Accumulate alpha * mean gradient of the step's layers; return the mean loss."""
        if self.feeds.hooks.watch:
            self._show(step)
        sizes = step_sizes(self.feeds.program, self.weights, step)
        return self._accumulate(step, {name: sizes[name] for name in self.feeds.plan.layers[step]})

    def not_finite(self, step: int, loss: float) -> str | None:
        """See `Running.not_finite`."""
        if not math.isfinite(loss):
            return "the loss"
        bad = (name for name in self.updated if not np.isfinite(self.model.gradient(name)).all())
        return next((f"grad::{name}" for name in bad), None)

    def update(self, step: int) -> None:
        """Let the optimizer step and copy what it changed."""
        self.model.step()
        self.model.reset()
        for name, value in self.updated.items():
            value[...] = self.model.value(name)

    def measured_dynamic_bytes(self) -> int | None:
        """There is no arena."""
        return None

    def _accumulate(self, step: int, sizes: dict[str, float]) -> float:
        layers, samples = self.feeds.program.layers, len(self.feeds.support)
        scale = np.array([sizes.get(layer.name, 0.0) for layer in layers], np.float32) / np.float32(samples)
        return (
            sum(self.model.train({**feeds, STEP_SCALE: scale}) for feeds in self.feeds.batches(step))
            / samples
        )

    def _show(self, step: int) -> None:
        """Compute the mean gradients themselves once, for whoever watches."""
        assert self.feeds.hooks.watch is not None
        names = self.feeds.plan.layers[step]
        layers = [layer for layer in self.feeds.program.layers if layer.name in names]
        self._accumulate(step, dict.fromkeys(names, 1.0))
        gradients = {g: p for layer in layers for p, g in zip(layer.params, layer.grads, strict=True)}
        values = [self.model.gradient(param).copy() for param in gradients.values()]
        self.feeds.hooks.watch(step, 0, Step(TRAINING, (), tuple(gradients)), values)
        self.model.reset()


def _binding() -> Any:
    try:
        with _without_front_end():
            binding = importlib.import_module("onnxruntime.capi._pybind_state")
    except ImportError as error:
        binding, reason = None, str(error)
    else:
        reason = "the onnxruntime that is installed cannot train"
    if not hasattr(binding, "Module"):
        raise UsageError(
            f"engine 'ort-training' needs onnxruntime-training-cpu 1.19.2 instead of onnxruntime ({reason}):"
            ' in an environment of its own, Python <= 3.12, pip install "edge-adapt[ort-training]"'
        )
    return binding


@contextmanager
def _without_front_end() -> Iterator[None]:
    """Let `import onnxruntime` miss its PyTorch front end, which would load PyTorch where it is installed."""
    absent = _FRONT_END not in sys.modules
    if absent:
        sys.modules[_FRONT_END] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[_FRONT_END]
