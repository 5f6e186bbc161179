"""What the engines on ONNX Runtime share: its options, the feeds of a micro-batch, checks of the plan."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError
from ..plan.plan import Plan
from ..program import Program
from .base import Array, Hooks, Progress, Samples, Support, Weights
from .given import class_mask

ERRORS_ONLY = 3


def session_options(module: Any) -> Any:
    """Return session options: errors only, and as many threads as the numerical libraries were given.

    Args:
        module: whatever has `SessionOptions`.
    """
    options = module.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    return options


def check_uncut(plan: Plan, name: str) -> None:
    """Raise UsageError if the plan keeps fewer channels than the program, which only planning engines do."""
    if plan.cap_cut:
        raise UsageError(f"engine {name!r} does not plan memory: plan without a budget, or use the reference")


@dataclass(frozen=True)
class Feeds:
    """The program's inputs, micro-batch by micro-batch."""

    program: Program
    plan: Plan
    support: Support
    hooks: Hooks

    def batches(self, step: int) -> Iterator[dict[str, Array]]:
        """Yield the inputs of every micro-batch of a gradient step, and report progress after it."""
        samples = len(self.support)
        for start in range(0, samples, self.plan.micro_batch):
            count = min(self.plan.micro_batch, samples - start)
            yield self._batch(step, start, count)
            if self.hooks.progress:
                self.hooks.progress(Progress(step, self.plan.steps, start + count, samples))

    def _batch(self, step: int, start: int, count: int) -> dict[str, Array]:
        inputs, part = self.program.inputs, slice(start, start + count)
        feeds = {
            inputs["images"]: filled(self.program, self.support, start, count),
            inputs["sample_weight"]: np.full(count, 1 / len(self.support), np.float32),
            **{inputs[name]: values[part] for name, values in self.support.loss_inputs().items()},
            **class_mask(self.program, len(self.support.class_names)),
        }
        for name, kept in self.hooks.selections.items():
            feeds[name] = kept[min(step, len(kept) - 1), part]
        return feeds


def filled(program: Program, samples: Samples, start: int, count: int) -> Array:
    """Return samples start, start + 1, ... as network inputs, float32 (count, ...)."""
    images = np.empty(program.tensors[program.inputs["images"]].concrete(count), np.float32)
    samples.fill(start, images)
    return images


def finite(values: Array) -> bool:
    """Tell whether no value is NaN or infinite, without an array of booleans beside it."""
    return math.isfinite(values.min()) and math.isfinite(values.max())


def step_sizes(program: Program, weights: Weights, step: int) -> dict[str, float]:
    """Return the step size of every layer in a gradient step; beyond K the last learned row counts."""
    (alpha,) = program.with_role("step-size")
    row = weights.mapped(alpha.name)[min(step, program.steps - 1)]
    return {layer.name: float(row[layer.index]) for layer in program.layers}
