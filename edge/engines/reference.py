"""The reference engine: NumPy kernels over the planned arena."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from ..errors import SupportError
from ..lower import lower_predict
from ..lower.table import LOAD
from ..plan.plan import Plan, arena_layout
from ..program import Program
from .arena import Arena
from .base import (
    NO_HOOKS,
    Adaptation,
    AdaptationInterrupted,
    Array,
    Hooks,
    NonFiniteError,
    Progress,
    Samples,
    Support,
    Weights,
)
from .binding import Bound, Call, bind


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
        run = _Run(program, plan, weights, support, hooks)
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
                with _uninterrupted():
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
                _run_call(call, bound, samples, start)
            logits[start : start + count] = bound.outputs["logits"]
        return logits


@dataclass
class _Run:
    """One adaptation in progress: the arena, the tensors outside it, and the arrays bound so far."""

    program: Program
    plan: Plan
    weights: Weights
    support: Support
    hooks: Hooks
    arena: Arena = field(init=False)
    updated: dict[str, Array] = field(init=False)
    _given: dict[str, Array] = field(init=False)
    _bound: tuple[tuple[int, int], Bound] | None = None

    def __post_init__(self) -> None:
        self.arena = Arena(self.plan.dynamic_bytes, self.hooks.measure)
        names = {name for step in self.plan.layers for name in step}
        params = (name for layer in self.program.layers if layer.name in names for name in layer.params)
        self.updated = {name: self.weights.copy(name) for name in params}
        self._given = _given_inputs(self.program, self.plan, self.support, self.hooks)

    def gradients(self, step: int) -> float:
        """Run all micro-batches of a gradient step, leaving the mean gradient; return the mean loss."""
        samples, loss = len(self.support), 0.0
        for start in range(0, samples, self.plan.micro_batch):
            count = min(self.plan.micro_batch, samples - start)
            bound = self._bind(step, count)
            self._fill_inputs(step, start, count)
            for call in (*bound.prologue, *bound.body) if start == 0 else bound.body:
                _run_call(call, bound, self.support, start)
                if self.hooks.watch:
                    self.hooks.watch(step, start, call.step, call.outputs)
            loss += float(bound.outputs["loss"].reshape(-1)[0])
            if self.hooks.progress:
                self.hooks.progress(Progress(step, self.plan.steps, start + count, samples))
        return loss

    def not_finite(self, step: int, loss: float) -> str | None:
        """Return what is NaN or infinite (the loss or an accumulator's name), None if all is well."""
        if not math.isfinite(loss):
            return "the loss"
        for name, array in self._current().accumulators.items():
            if not (math.isfinite(array.min()) and math.isfinite(array.max())):
                return name
        return None

    def update(self, step: int) -> None:
        """Apply every update of a gradient step, with the last learned row of step sizes beyond K."""
        row = min(step, self.program.steps - 1)
        for call in self._current().epilogue:
            call.run({"step": row})

    def _current(self) -> Bound:
        assert self._bound is not None
        return self._bound[1]

    def _bind(self, step: int, count: int) -> Bound:
        number = self.plan.lowered.order[step]
        if self._bound is None or self._bound[0] != (number, count):
            lowered, offsets = self.plan.lowered.programs[number], self.plan.offsets[number]
            bound = bind(lowered, offsets, self.arena, count, lambda name: self._outside(name, count))
            self._bound = ((number, count), bound)
        return self._current()

    def _outside(self, name: str, count: int) -> Array:
        name = name.removeprefix("updated::")
        if name in self.updated:
            return self.updated[name]
        if name in self._given:
            batched = self.program.tensors[name].batched
            return self._given[name][:count] if batched else self._given[name]
        return self.weights.mapped(name)

    def _fill_inputs(self, step: int, start: int, count: int) -> None:
        self._given[self.program.inputs["labels"]][:count] = self.support.labels[start : start + count]
        for name, kept in self.hooks.selections.items():
            self._given[name][:count] = kept[min(step, len(kept) - 1), start : start + count]


def _run_call(call: Call, bound: Bound, samples: Samples, start: int) -> None:
    if call.step.kind == LOAD:
        assert bound.images is not None
        samples.fill(start, bound.images)
    else:
        call.run({})


def _given_inputs(program: Program, plan: Plan, support: Support, hooks: Hooks) -> dict[str, Array]:
    """Return the inputs outside the arena: labels, sample weights, the class mask, recorded selections."""
    inputs = program.inputs
    mask = np.zeros(program.tensors[inputs["class_mask"]].concrete(1), np.float32)
    mask[: len(support.class_names)] = 1
    given: dict[str, Array] = {
        inputs["labels"]: np.zeros(plan.micro_batch, np.int64),
        inputs["sample_weight"]: np.full(plan.micro_batch, 1 / len(support), np.float32),
        inputs["class_mask"]: mask,
    }
    for name in hooks.selections:
        given[name] = np.zeros(program.tensors[name].concrete(plan.micro_batch), np.float32)
    return given


def _check(program: Program, plan: Plan, support: Support) -> None:
    classes = int(program.tensors[program.inputs["class_mask"]].shape[0])
    if not 1 <= len(support) <= plan.samples:
        raise SupportError(
            f"support: {len(support)} samples, the plan is for 1 to {plan.samples}; plan with --samples"
            f" {len(support)}"
        )
    if not 1 <= len(support.class_names) <= classes:
        raise SupportError(f"support: {len(support.class_names)} classes, the head has {classes} outputs")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C, so that the updates of one step happen all or not at all."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and callable(before):
        before(*caught[0])
