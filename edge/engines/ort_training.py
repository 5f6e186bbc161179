"""The ONNX Runtime training engine: the steps of the bundle's `ort_training/` artifacts."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..losses import answer_tensors
from ..lower.table import Step
from ..plan.plan import Plan
from ..program import Program
from .base import NO_HOOKS, Adaptation, Array, Hooks, Samples, Support, Weights
from .given import class_mask
from .loop import check_micro_batch, check_support, run_steps
from .ort_binding import ARTIFACTS, TRAINING, Artifacts, training_binding
from .sessions import Feeds, check_uncut, filled, finite, step_sizes

DIRECTORY = "ort_training"
STEP_SCALE = "step_scale"


class OrtTrainingEngine:
    """Runs the artifacts that `export-bundle --ort-training` made; it does not plan memory.

    Raises:
        UsageError: onnxruntime-training is not installed.
        BundleError: the bundle was exported without --ort-training.
    """

    name = "ort-training"
    plans = False

    def __init__(self, directory: Path) -> None:
        self._binding = training_binding()
        self._directory = directory / DIRECTORY
        for name in ARTIFACTS:
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
        model = Artifacts(self._binding, self._directory, program, weights)
        return run_steps(_Run(Feeds(program, plan, support, hooks), weights, model), plan, start_step, hooks)

    def predict(
        self, program: Program, weights: Weights, samples: Samples, micro_batch: int = 1
    ) -> NDArray[np.float32]:
        """See `Engine.predict`; the eval model computes the loss, too, so labels are fed and ignored."""
        check_micro_batch(micro_batch)
        model = Artifacts(self._binding, self._directory, program, weights, evaluates=True)
        inputs = program.inputs
        classes = int(program.tensors[program.outputs["logits"]].shape[-1])
        logits = []
        for start in range(0, len(samples), micro_batch):
            count = min(micro_batch, len(samples) - start)
            feeds = {inputs["images"]: filled(program, samples, start, count)}
            feeds |= {t.name: np.zeros(t.concrete(count), t.dtype) for t in answer_tensors(program).values()}
            feeds |= class_mask(program, classes)
            logits.append(model.evaluate(feeds))
        return np.concatenate(logits)


@dataclass
class _Run:
    """One adaptation in progress; `updated` are ONNX Runtime's own parameters, which only a finished step changes."""

    feeds: Feeds
    weights: Weights
    model: Artifacts
    updated: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        ever = {name for step in self.feeds.plan.layers for name in step}
        layers = [layer for layer in self.feeds.program.layers if layer.name in ever]
        self.updated = {param: self.model.value(param) for layer in layers for param in layer.params}

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
        bad = (name for name in self.updated if not finite(self.model.gradient(name)))
        return next((f"grad::{name}" for name in bad), None)

    def update(self, step: int) -> None:
        """Let the optimizer step."""
        self.model.step()
        self.model.reset()

    def restore(self) -> None:
        """Nothing to do: parameters change when a step is finished."""

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
