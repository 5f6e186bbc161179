"""The reference engine: NumPy kernels over the planned arena."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ..errors import SupportError
from ..lower import lower_predict
from ..plan.plan import Plan, arena_layout
from ..program import Program
from .arena import Arena
from .base import (
    NO_HOOKS,
    Adaptation,
    AdaptationInterrupted,
    Hooks,
    NonFiniteError,
    Samples,
    Support,
    Weights,
)
from .binding import Bound, bind
from .interrupts import uninterrupted
from .running import Run, run_call


class ReferenceEngine:
    """Runs a plan's step programs with the kernels of `edge/reference`, every write inside the arena."""

    name = "reference"

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
        started = time.perf_counter()
        _check(program, plan, support)
        run = Run(program, plan, weights, support, hooks)
        losses: list[float] = []
        done = start_step

        def state() -> Adaptation:
            seconds = time.perf_counter() - started
            return Adaptation(run.updated, tuple(losses), done, seconds, run.arena.highest_changed())

        try:
            for step in range(start_step, plan.steps):
                loss = run.gradients(step)
                if trouble := run.not_finite(step, loss):
                    raise NonFiniteError(
                        f"step {step + 1} of {plan.steps}: {trouble} is not finite; kept the weights after"
                        f" {done} steps; check the samples, or plan fewer steps",
                        state(),
                    )
                with uninterrupted():
                    run.update(step)
                    losses.append(loss)
                    done = step + 1
                if hooks.finished:
                    hooks.finished(done, run.updated, loss)
        except KeyboardInterrupt:
            raise AdaptationInterrupted(state()) from None
        return state()

    def predict(
        self, program: Program, weights: Weights, samples: Samples, micro_batch: int = 1
    ) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        forward = lower_predict(program, micro_batch).programs[0]
        offsets, arena_bytes = arena_layout(forward)
        arena = Arena(arena_bytes)
        classes = int(program.tensors[program.outputs["logits"]].shape[1])
        logits = np.empty((len(samples), classes), np.float32)
        bound: Bound | None = None
        for start in range(0, len(samples), micro_batch):
            count = min(micro_batch, len(samples) - start)
            if bound is None or count < micro_batch:
                bound = bind(forward, offsets, arena, count, weights.mapped)
            for call in bound.body:
                run_call(call, bound, samples, start)
            logits[start : start + count] = bound.outputs["logits"]
        return logits


def _check(program: Program, plan: Plan, support: Support) -> None:
    classes = int(program.tensors[program.inputs["class_mask"]].shape[0])
    if not 1 <= len(support) <= plan.samples:
        raise SupportError(
            f"support: {len(support)} samples, the plan is for 1 to {plan.samples}; plan with --samples"
            f" {len(support)}"
        )
    if not 1 <= len(support.class_names) <= classes:
        raise SupportError(f"support: {len(support.class_names)} classes, the head has {classes} outputs")
