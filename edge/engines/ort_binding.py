"""ONNX Runtime training's C binding, and the artifacts loaded through it.

The package's Python interface imports PyTorch; the binding, which is all that is used here, does not.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..program import Program
from .base import Array, Weights
from .sessions import session_options

TRAINING, EVAL, OPTIMIZER, CHECKPOINT = ARTIFACTS = (
    "training_model.onnx",
    "eval_model.onnx",
    "optimizer_model.onnx",
    "checkpoint",
)
_FRONT_END = "onnxruntime.training.ortmodule"


def training_binding() -> Any:
    """Return the C binding; raises UsageError where onnxruntime-training is not installed."""
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


class Artifacts:
    """The artifacts, loaded: parameters, their gradients and the optimizer live in ONNX Runtime.

    The eval model, which takes memory of its own, is loaded only for `evaluate`.
    """

    def __init__(
        self, binding: Any, directory: Path, program: Program, weights: Weights, evaluates: bool = False
    ) -> None:
        self._binding = binding
        paths = {name: str(directory / name) for name in ARTIFACTS}
        options = session_options(binding)
        device = binding.OrtDevice(binding.OrtDevice.cpu(), binding.OrtDevice.default_memory(), 0)
        self._device = device
        self._state = binding.load_checkpoint(paths[CHECKPOINT])
        evaluation = paths[EVAL] if evaluates else None
        self._module = binding.Module(paths[TRAINING], self._state, evaluation, device, options)
        self._optimizer = binding.Optimizer(paths[OPTIMIZER], self._state, device, options)
        self._optimizer.set_learning_rate(1.0)
        for tensor in program.with_role("param"):
            self._write(tensor.name, weights)

    def train(self, feeds: dict[str, Array]) -> float:
        """Add the scaled gradients of a micro-batch; return the sum of its samples' losses."""
        return float(np.reshape(self._run(self._module.train_step, True, feeds)[0], -1)[0])

    def evaluate(self, feeds: dict[str, Array]) -> Array:
        """Return the logits of a micro-batch; needs `evaluates`."""
        return self._run(self._module.eval_step, False, feeds)[1]

    def gradient(self, param: str) -> Array:
        """Return what was accumulated for a parameter: ONNX Runtime's own memory."""
        return np.asarray(self._state.get_parameter(param).grad.numpy())

    def value(self, param: str) -> Array:
        """Return a parameter's value: ONNX Runtime's own memory, which `step` changes in place."""
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

    def _write(self, name: str, weights: Weights) -> None:
        """Write a parameter; the pages of a mapped file do not stay resident beside it."""
        if self._state.has_parameter(name):
            kept = np.ascontiguousarray(weights.mapped(name))  # the binding does not keep its memory alive
            self._state.copy_parameter_from(
                name, self._binding.OrtValue.ortvalue_from_numpy(kept, self._device)
            )
            weights.give_back()
