"""Binding: names of a step program to memory, in the arena or outside it, for the samples at hand.

An engine that keeps a plan is a `Backend`: it binds step programs, and what it binds can be run. `engines/running.py`
drives it through the gradient steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ..lower.memory import stored_shape, workspace_name
from ..lower.table import LOAD, Step, StepProgram, Value
from ..program import DTYPE_BITS, Tensor
from .arena import Arena
from .base import Array
from .calls import Call
from .calls import NotFinite as NotFinite
from .slices import SlicesCall

Resolve = Callable[[str], Array]
Phase = Literal["prologue", "body", "epilogue"]


@dataclass(frozen=True)
class Place:
    """Where and for which samples a step program is bound.

    Attributes:
        offsets: buffer and cache names to arena offsets.
        arena: at least as large as the plan says.
        first: the first sample, counted in the support set.
        count: samples, at most `program.batch`.
        outside: returns the array of a value that is not in the arena, cut to `count` samples where it is batched.
    """

    offsets: Mapping[str, int]
    arena: Arena
    first: int
    count: int
    outside: Resolve


class Bound(Protocol):
    """A step program over memory."""

    @property
    def images(self) -> Array | None:
        """Where the samples go before the body runs; None where nothing reads them."""

    @property
    def accumulators(self) -> Mapping[str, Array]:
        """The parameter gradients that are checked before the epilogue."""

    @property
    def outputs(self) -> Mapping[str, Array]:
        """`loss` or `logits`."""

    def run(
        self, phase: Phase, row: int, after: Callable[[Step, tuple[Array | None, ...]], None] | None
    ) -> None:
        """Run one phase.

        Args:
            phase: which steps.
            row: row of the step-size table for updates.
            after: called after every step with its output arrays.

        Raises:
            NotFinite: an update inside the body met a gradient that is not finite.
        """


class Backend(Protocol):
    """Binds step programs."""

    def bind(self, program: StepProgram, place: Place) -> Bound:
        """Bind a step program."""


def arrays_of(program: StepProgram, place: Place) -> dict[str, Array]:
    """Return the arrays of every value of a step program."""
    return {value.name: array_of(value, place) for value in program.values.values()}


def array_of(value: Value, place: Place) -> Array:
    """Return the array of one value."""
    if not value.buffer and not value.cached:
        return place.outside(value.name)
    tensor = Tensor(value.name, value.shape, value.dtype)
    shape = stored_shape(tensor, place.count)
    start = place.first * tensor.size_bytes(1) if value.cached and tensor.batched else 0
    offset = place.offsets[value.name if value.cached else value.buffer] + start
    return place.arena.view(offset, shape, np.uint8 if DTYPE_BITS[value.dtype] < 8 else value.dtype)


@dataclass(frozen=True)
class BoundCalls:
    """A step program over arrays, run by the kernels of `edge/reference`; see `Bound`."""

    program: StepProgram
    calls: tuple[Call | SlicesCall, ...]
    images: Array | None
    accumulators: Mapping[str, Array]
    outputs: Mapping[str, Array]

    def run(
        self, phase: Phase, row: int, after: Callable[[Step, tuple[Array | None, ...]], None] | None
    ) -> None:
        """See `Bound.run`."""
        for call in self.calls[phase_steps(self.program, phase)]:
            if call.step.kind != LOAD:
                call.run({"step": row})
            if after:
                after(call.step, call.outputs)


def phase_steps(program: StepProgram, phase: Phase) -> slice:
    """Return which of the steps belong to a phase."""
    start, stop = program.body
    return {"prologue": slice(0, start), "body": slice(start, stop), "epilogue": slice(stop, None)}[phase]


class ReferenceBackend:
    """The kernels of `edge/reference`, one call per step."""

    def bind(self, program: StepProgram, place: Place) -> BoundCalls:
        """See `Backend.bind`."""
        arrays = arrays_of(program, place)
        calls = tuple(_call(step, i, program, arrays, place) for i, step in enumerate(program.steps))
        loads = [call.outputs[0] for call in calls if call.step.kind == LOAD]
        return BoundCalls(
            program,
            calls,
            loads[0] if loads else None,
            {name: arrays[name] for name in program.accumulators},
            {part: arrays[name] for part, name in program.outputs.items() if name in arrays},
        )


def _call(
    step: Step, index: int, program: StepProgram, arrays: Mapping[str, Array], place: Place
) -> Call | SlicesCall:
    offset = place.offsets.get(workspace_name(index), 0)
    workspace = place.arena.view(offset, (step.workspace_bytes,), np.uint8)
    if step.slices is not None:
        own = {name: arrays[name] for name in (*step.inputs, *step.outputs) if name}
        batched = {name for name in own if program.values[name].shape[:1] == ("N",)}
        return SlicesCall(step, own, batched, place.count, workspace)
    inputs, outputs = (
        tuple(arrays[name] if name else None for name in names) for names in (step.inputs, step.outputs)
    )
    return Call(step, inputs, outputs, workspace)
