"""One adaptation in progress, for engines that keep a plan: arena, parameters, prefix, gradient steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..losses import answer_tensors
from ..lower.table import Step, StepProgram
from ..plan.plan import Plan
from ..program import Program
from .arena import Arena
from .base import Array, Hooks, Progress, Support, Weights
from .binding import Backend, Bound, NotFinite, Place
from .given import class_mask
from .kept import KeptParameters

After = Callable[[Step, tuple[Array | None, ...]], None]


@dataclass
class Run:
    """One adaptation in progress: the arena, the tensors outside it, and the step program bound last."""

    program: Program
    plan: Plan
    weights: Weights
    support: Support
    hooks: Hooks
    backend: Backend
    arena: Arena = field(init=False)
    _given: dict[str, Array] = field(init=False)
    _bound: tuple[tuple[int, int, int], Bound] | None = None
    _in_suffix: bool = False
    _trouble: str | None = None
    _kept: KeptParameters | None = None

    def __post_init__(self) -> None:
        self.arena = Arena(self.plan.dynamic_bytes, self.hooks.measure)
        self._given = _given_inputs(self.program, self.plan, self.support, self.hooks)

    @cached_property
    def updated(self) -> dict[str, Array]:
        """The parameters that some step updates, copied when they are first asked for: a prefix needs none."""
        names = {name for step in self.plan.layers for name in step}
        params = (name for layer in self.program.layers if layer.name in names for name in layer.params)
        return {name: self.weights.copy(name) for name in params}

    def gradients(self, step: int) -> float:
        """Run all micro-batches of a gradient step, leaving the mean gradient; return the mean loss.

        Where updates happen inside the step they are done afterwards, `restore` undoes them.
        """
        lowered, self._trouble = self.plan.lowered, None
        if not self._in_suffix:
            self._start(step)
        number = lowered.order[step] + (lowered.prefix is not None)
        try:
            return self._passes(step, number, lowered.all_programs[number])
        except NotFinite as trouble:
            loss = self._loss(self._current())
            self._trouble = trouble.name if math.isfinite(loss) else "the loss"
            return loss

    def _start(self, step: int) -> None:
        """Compute what no step changes; then give its weights back and make the copies that are updated."""
        lowered = self.plan.lowered
        if lowered.prefix is not None:
            self._passes(step, 0, lowered.prefix)
            self._bound = None
            self.weights.give_back()
        if any(one.updates_inside for one in lowered.programs):
            self._kept = KeptParameters(self.updated)
        self._in_suffix = True

    def _passes(self, step: int, number: int, program: StepProgram) -> float:
        """Run a step program over all samples and return the mean loss, 0 of a prefix."""
        samples, loss, row = len(self.support), 0.0, self._row(step)
        prefix = program is self.plan.lowered.prefix
        for start in range(0, samples, program.batch):
            count = min(program.batch, samples - start)
            bound = self._bind(number, start, count)
            self._fill_inputs(step, start, count)
            if bound.images is not None:
                self.support.fill(start, bound.images)
            after = self._watching(step, start)
            if start == 0:
                bound.run("prologue", row, after)
            bound.run("body", row, after)
            loss += self._loss(bound)
            if self.hooks.progress:
                done = (start + count) // (2 if prefix else 1)
                self.hooks.progress(Progress(step, self.plan.steps, done, samples))
        return loss

    @staticmethod
    def _loss(bound: Bound) -> float:
        return float(bound.outputs["loss"].reshape(-1)[0]) if "loss" in bound.outputs else 0.0

    def _watching(self, step: int, start: int) -> After | None:
        watch = self.hooks.watch
        return None if watch is None else lambda one, outputs: watch(step, start, one, outputs)

    def not_finite(self, step: int, loss: float) -> str | None:
        """Return what is NaN or infinite (the loss or an accumulator's name), None if all is well."""
        if self._trouble:
            return self._trouble
        if not math.isfinite(loss):
            return "the loss"
        for name, array in self._current().accumulators.items():
            if not (math.isfinite(array.min()) and math.isfinite(array.max())):
                return name
        return None

    def update(self, step: int) -> None:
        """Apply every update of a gradient step, with the last learned row of step sizes beyond K."""
        self._current().run("epilogue", self._row(step), None)
        if self._kept is not None:
            self._kept.keep(self.updated)

    def restore(self) -> None:
        """Go back to the parameters after the last finished gradient step."""
        if self._kept is not None:
            self._kept.restore(self.updated)

    def release(self) -> None:
        """Let go of what is bound to the arena, which refers to this run: the arena is given back with the run."""
        self._bound = None

    def measured_dynamic_bytes(self) -> int | None:
        """Return one more than the highest arena byte that changed; None if it was not measured."""
        return self.arena.highest_changed()

    def _row(self, step: int) -> int:
        return min(step, self.program.steps - 1)

    def _current(self) -> Bound:
        assert self._bound is not None
        return self._bound[1]

    def _bind(self, number: int, start: int, count: int) -> Bound:
        program = self.plan.lowered.all_programs[number]
        moves = any(value.cached for value in program.values.values())
        key = (number, count, start if moves else 0)
        if self._bound is None or self._bound[0] != key:
            place = Place(
                self.plan.offsets[number], self.arena, start, count, lambda name: self._outside(name, count)
            )
            self._bound = (key, self.backend.bind(program, place))
        return self._current()

    def _outside(self, name: str, count: int) -> Array:
        name = name.removeprefix("updated::")
        if self._in_suffix and name in self.updated:
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


def _given_inputs(program: Program, plan: Plan, support: Support, hooks: Hooks) -> dict[str, Array]:
    """Return the inputs outside the arena: labels or targets, sample weights, class mask, selections."""
    given = class_mask(program, len(support.class_names))
    batch = max(one.batch for one in plan.lowered.all_programs)
    weight = np.full(batch, 1 / len(support), np.float32)
    given[program.inputs["sample_weight"]] = weight
    for tensor in answer_tensors(program).values():
        given[tensor.name] = np.zeros(tensor.concrete(batch), tensor.dtype)
    for name in hooks.selections:
        given[name] = np.zeros(program.tensors[name].concrete(batch), np.float32)
    return given
