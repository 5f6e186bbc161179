"""The loop over gradient steps that every engine shares: all or nothing, checked, observable."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from ..errors import SupportError, UsageError
from ..losses import answer_tensors
from ..plan.plan import Plan
from ..program import Program
from .base import Adaptation, AdaptationInterrupted, Array, Hooks, NonFiniteError, Support
from .given import class_mask
from .interrupts import uninterrupted


class Running(Protocol):
    """One adaptation in progress."""

    @property
    def updated(self) -> Mapping[str, Array]:
        """The tensors that are updated, after the last finished step."""

    def gradients(self, step: int) -> float:
        """Compute the mean gradient of a step, all micro-batches; return the mean loss."""

    def not_finite(self, step: int, loss: float) -> str | None:
        """Return what is NaN or infinite (the loss or a gradient's name), None if all is well."""

    def update(self, step: int) -> None:
        """Apply the updates of a gradient step."""

    def restore(self) -> None:
        """Undo what an unfinished gradient step has changed already."""

    def measured_dynamic_bytes(self) -> int | None:
        """Return the highest byte written in an arena; None where there is none or it was not measured."""


def run_steps(running: Running, plan: Plan, start_step: int, hooks: Hooks) -> Adaptation:
    """Run gradient steps `start_step` to `plan.steps - 1`.

    Raises:
        NonFiniteError: a loss or gradient is not finite; the last finished step is kept.
        AdaptationInterrupted: on KeyboardInterrupt; the last finished step is kept.
    """
    started, busy = time.perf_counter(), time.process_time()
    losses: list[float] = []
    done = start_step

    def state() -> Adaptation:
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - busy
        measured = running.measured_dynamic_bytes()
        return Adaptation(running.updated, tuple(losses), done, seconds, measured, cpu_seconds)

    try:
        for step in range(start_step, plan.steps):
            loss = running.gradients(step)
            if trouble := running.not_finite(step, loss):
                running.restore()
                raise NonFiniteError(
                    f"step {step + 1} of {plan.steps}: {trouble} is not finite; kept the weights after"
                    f" {done} steps; check the samples, or plan fewer steps",
                    state(),
                )
            with uninterrupted():
                running.update(step)
                losses.append(loss)
                done = step + 1
                if hooks.finished:
                    hooks.finished(done, running.updated, loss)
    except KeyboardInterrupt:
        with uninterrupted():
            running.restore()
        raise AdaptationInterrupted(state()) from None
    return state()


def check_micro_batch(micro_batch: int) -> None:
    """Raise UsageError for a micro-batch without samples."""
    if micro_batch < 1:
        raise UsageError(f"micro_batch: expected a positive integer, got {micro_batch}")


def check_support(program: Program, plan: Plan, support: Support) -> None:
    """Raise SupportError unless the samples, and what is said about them, fit the plan and the program."""
    if not 1 <= len(support) <= plan.samples:
        raise SupportError(
            f"support: {len(support)} samples, the plan is for 1 to {plan.samples}; plan with --samples"
            f" {len(support)}"
        )
    needed, found = sorted(answer_tensors(program)), sorted(support.loss_inputs())
    if needed != found:
        raise SupportError(f"support: expected {' and '.join(needed)}, got {' and '.join(found)}")
    for mask in class_mask(program, 0).values():
        if not 1 <= len(support.class_names) <= mask.size:
            raise SupportError(
                f"support: {len(support.class_names)} classes, the head has {mask.size} outputs"
            )
