"""What the engines that keep a plan have in common: adapt and predict with a backend, every write in one arena."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..lower import Target, lower_predict
from ..plan.plan import Plan, arena_layout
from ..program import Program
from .arena import Arena
from .base import NO_HOOKS, Adaptation, Hooks, Samples, Support, Weights
from .binding import Backend
from .forward import forward
from .loop import check_micro_batch, check_support, run_steps
from .running import Run


class PlannedEngine:
    """Runs a plan's step programs with the operations of a backend.

    Attributes:
        name: of the engine.
        plans: true.
        target: what plans for this engine are made for.
        backend: what binds step programs.
    """

    plans = True

    def __init__(self, name: str, target: Target, backend: Backend) -> None:
        self.name = name
        self.target = target
        self.backend = backend

    def adapt(
        self,
        program: Program,
        plan: Plan,
        weights: Weights,
        support: Support,
        start_step: int = 0,
        hooks: Hooks = NO_HOOKS,
    ) -> Adaptation:
        """See `Engine.adapt`; raises UsageError for a plan that was made for another engine."""
        self.check_plan(plan)
        check_support(program, plan, support)
        run = Run(program, plan, weights, support, hooks, self.backend)
        try:
            return run_steps(run, plan, start_step, hooks)
        finally:
            run.release()

    def check_plan(self, plan: Plan) -> None:
        """Raise UsageError for a plan that was made for another engine."""
        wanted, found = (self.target.name, self.target.threads), (plan.engine, plan.threads)
        if wanted != found:
            raise UsageError(
                f"the plan is for engine {found[0]!r} with threads {found[1]}, this is engine {wanted[0]!r} with"
                f" threads {wanted[1]}: plan with engine={wanted[0]!r}, threads={wanted[1]}"
            )

    def predict(
        self, program: Program, weights: Weights, samples: Samples, micro_batch: int = 1
    ) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        check_micro_batch(micro_batch)
        lowered = lower_predict(program, micro_batch, self.target).programs[0]
        offsets, arena_bytes = arena_layout(lowered)
        arena = Arena(arena_bytes)
        outputs = program.tensors[program.outputs["logits"]]
        logits = np.empty(outputs.concrete(len(samples)), np.float32)
        for start, found in forward(self.backend, lowered, offsets, arena, weights, samples):
            logits[start : start + len(found)] = found
        return logits
