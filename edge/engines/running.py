"""One adaptation in progress, for engines that run the step list operation by operation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from ..losses import answer_tensors
from ..lower.table import LOAD
from ..plan.plan import Plan
from ..program import Program
from .arena import Arena
from .base import Array, Hooks, Progress, Samples, Support, Weights
from .binding import Bound, Call, bind
from .given import class_mask


@dataclass
class Run:
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
                run_call(call, bound, self.support, start)
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

    def measured_dynamic_bytes(self) -> int | None:
        """Return one more than the highest arena byte that changed; None if it was not measured."""
        return self.arena.highest_changed()

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
        for part, values in self.support.loss_inputs().items():
            self._given[self.program.inputs[part]][:count] = values[start : start + count]
        for name, kept in self.hooks.selections.items():
            self._given[name][:count] = kept[min(step, len(kept) - 1), start : start + count]


def run_call(call: Call, bound: Bound, samples: Samples, start: int) -> None:
    """Run one step of a body: load the samples from `start` on, or call the kernel."""
    if call.step.kind == LOAD:
        assert bound.images is not None
        samples.fill(start, bound.images)
    else:
        call.run({})


def _given_inputs(program: Program, plan: Plan, support: Support, hooks: Hooks) -> dict[str, Array]:
    """Return the inputs outside the arena: labels or targets, sample weights, class mask, selections."""
    given = class_mask(program, len(support.class_names))
    weight = np.full(plan.micro_batch, 1 / len(support), np.float32)
    given[program.inputs["sample_weight"]] = weight
    for tensor in answer_tensors(program).values():
        given[tensor.name] = np.zeros(tensor.concrete(plan.micro_batch), tensor.dtype)
    for name in hooks.selections:
        given[name] = np.zeros(program.tensors[name].concrete(plan.micro_batch), np.float32)
    return given
