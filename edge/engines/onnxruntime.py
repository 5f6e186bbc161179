"""The stock-onnxruntime engine: gradients from the bundle's `training.onnx`, the steps in NumPy."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, UsageError
from ..lower.table import Step
from ..plan.plan import Plan
from ..program import Program
from .base import NO_HOOKS, Adaptation, Array, Hooks, Samples, Support, Weights
from .loop import check_micro_batch, check_support, run_steps
from .sessions import Feeds, check_uncut, filled, session_options, step_sizes

PROVIDERS = ["CPUExecutionProvider"]
TRAINING, EVAL = "training.onnx", "eval.onnx"


class OnnxRuntimeEngine:
    """Runs the bundle's ONNX files in any onnxruntime >= 1.17; it does not plan, and memory is what it takes.

    Raises:
        UsageError: onnxruntime is not installed.
        BundleError: the bundle has no ONNX files.
    """

    name = "onnxruntime"
    plans = False

    def __init__(self, directory: Path) -> None:
        try:
            self._ort = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise UsageError(
                f"engine 'onnxruntime' needs onnxruntime ({error}): pip install \"edge-adapt[ort]\""
            ) from None
        self._directory = directory
        if not (directory / EVAL).is_file():
            self._require(TRAINING, EVAL)

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
        self._require(TRAINING)
        check_support(program, plan, support)
        check_uncut(plan, self.name)
        feeds = Feeds(program, plan, support, hooks)
        return run_steps(_Run(feeds, weights, self._session(TRAINING)), plan, start_step, hooks)

    def predict(
        self, program: Program, weights: Weights, samples: Samples, micro_batch: int = 1
    ) -> NDArray[np.float32]:
        """See `Engine.predict`; the weights take the place of those that eval.onnx names."""
        check_micro_batch(micro_batch)
        read = {name for op in program.ops(("forward",)) for name in op.inputs}
        names = [tensor.name for tensor in program.with_role("param") if tensor.name in read]
        values = [self._ort.OrtValue.ortvalue_from_numpy(np.array(weights.mapped(name))) for name in names]
        session = self._session(EVAL, dict(zip(names, values, strict=True)))
        logits = [
            session.run(["logits"], {program.inputs["images"]: filled(program, samples, start, count)})[0]
            for start in range(0, len(samples), micro_batch)
            for count in [min(micro_batch, len(samples) - start)]
        ]
        return np.concatenate(logits)

    def _require(self, *names: str) -> None:
        for name in names:
            if not (self._directory / name).is_file():
                raise BundleError(
                    f"{self._directory}: the bundle has no {name}; export it again with that file"
                )

    def _session(self, name: str, values: dict[str, Any] | None = None) -> Any:
        options = session_options(self._ort)
        if values:
            options.add_external_initializers(list(values), list(values.values()))
        return self._ort.InferenceSession(str(self._directory / name), options, providers=PROVIDERS)


@dataclass
class _Run:
    """One adaptation in progress: the updated tensors and the gradients of the current step."""

    feeds: Feeds
    weights: Weights
    session: Any
    updated: dict[str, Array] = field(init=False)
    _gradients: dict[str, Array] = field(default_factory=dict)
    _given: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        layers = self.feeds.program.layers
        ever = {name for step in self.feeds.plan.layers for name in step}
        self.updated = {
            p: self.weights.copy(p) for layer in layers if layer.name in ever for p in layer.params
        }
        names = [item.name for item in self.session.get_overridable_initializers()]
        self._given = {name: self.weights.mapped(name) for name in names if name not in self.updated}

    def gradients(self, step: int) -> float:
        """Sum the micro-batches' gradients, each weighted 1/N already; return the mean loss."""
        wanted = self._wanted(step)
        self._gradients = {param: np.zeros_like(self.updated[param]) for param in wanted}
        loss = 0.0
        for feeds in self.feeds.batches(step):
            given = {**self._given, **self.updated, **feeds}
            found, *gradients = self.session.run(["loss", *wanted.values()], given)
            loss += float(np.reshape(found, -1)[0])
            for param, gradient in zip(wanted, gradients, strict=True):
                self._gradients[param] += gradient
        if self.feeds.hooks.watch:
            last = Step(TRAINING, (), tuple(wanted.values()))
            self.feeds.hooks.watch(step, 0, last, list(self._gradients.values()))
        return loss

    def not_finite(self, step: int, loss: float) -> str | None:
        """See `Running.not_finite`."""
        if not math.isfinite(loss):
            return "the loss"
        bad = (name for name, value in self._gradients.items() if not np.isfinite(value).all())
        return next((f"grad::{name}" for name in bad), None)

    def update(self, step: int) -> None:
        """Apply w <- w - alpha * g to every parameter of the step's layers, in place."""
        sizes = step_sizes(self.feeds.program, self.weights, step)
        for layer in self.feeds.program.layers:
            for param in layer.params:
                if param in self._gradients:
                    self.updated[param] -= np.float32(sizes[layer.name]) * self._gradients[param]

    def restore(self) -> None:
        """Nothing to do: parameters change when a step is finished."""

    def measured_dynamic_bytes(self) -> int | None:
        """There is no arena."""
        return None

    def _wanted(self, step: int) -> dict[str, str]:
        """Return parameter to gradient for the layers that this step updates."""
        layers = [layer for layer in self.feeds.program.layers if layer.name in self.feeds.plan.layers[step]]
        return {p: g for layer in layers for p, g in zip(layer.params, layer.grads, strict=True)}
