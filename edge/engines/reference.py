"""The reference engine: NumPy kernels over the planned arena."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..lower import lower_predict
from ..plan.plan import Plan, arena_layout
from ..program import Program
from .arena import Arena
from .base import NO_HOOKS, Adaptation, Hooks, Samples, Support, Weights
from .binding import Bound, bind
from .loop import check_support, run_steps
from .running import Run, run_call


class ReferenceEngine:
    """Runs a plan's step programs with the kernels of `edge/reference`, every write inside the arena."""

    name = "reference"
    plans = True

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
        return run_steps(Run(program, plan, weights, support, hooks), plan, start_step, hooks)

    def predict(
        self, program: Program, weights: Weights, samples: Samples, micro_batch: int = 1
    ) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        forward = lower_predict(program, micro_batch).programs[0]
        offsets, arena_bytes = arena_layout(forward)
        arena = Arena(arena_bytes)
        outputs = program.tensors[program.outputs["logits"]]
        logits = np.empty(outputs.concrete(len(samples)), np.float32)
        bound: Bound | None = None
        for start in range(0, len(samples), micro_batch):
            count = min(micro_batch, len(samples) - start)
            if bound is None or count < micro_batch:
                bound = bind(forward, offsets, arena, count, weights.mapped)
            for call in bound.body:
                run_call(call, bound, samples, start)
            logits[start : start + count] = bound.outputs["logits"]
        return logits
