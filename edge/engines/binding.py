"""Binding: names of a step program to arrays, in the arena or outside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..lower.memory import stored_shape, workspace_name
from ..lower.table import LOAD, Step, StepProgram, Value
from ..program import DTYPE_BITS, Tensor
from ..reference import KERNELS
from .arena import Arena
from .base import Array

Resolve = Callable[[str], Array]


@dataclass(frozen=True)
class Call:
    """One step with its arrays; `Load` steps have no kernel."""

    step: Step
    inputs: tuple[Array | None, ...]
    outputs: tuple[Array | None, ...]
    workspace: Array

    def run(self, extra: Mapping[str, Any]) -> None:
        """Run the kernel with the step's attributes and `extra` ones."""
        KERNELS[self.step.kind].run(self.inputs, self.outputs, {**self.step.attrs, **extra}, self.workspace)


@dataclass(frozen=True)
class Bound:
    """A step program over arrays, for a given number of samples.

    Attributes:
        images: where `Load` writes, None where nothing reads the images.
        accumulators: the parameter gradients.
        outputs: `loss` or `logits`.
    """

    prologue: tuple[Call, ...]
    body: tuple[Call, ...]
    epilogue: tuple[Call, ...]
    images: Array | None
    accumulators: Mapping[str, Array]
    outputs: Mapping[str, Array]


def bind(
    program: StepProgram, offsets: Mapping[str, int], arena: Arena, batch: int, outside: Resolve
) -> Bound:
    """Make the arrays of a step program for `batch` samples, which may be fewer than planned.

    Args:
        program: the step program.
        offsets: buffer name to arena offset.
        arena: at least as large as the layout of the step program.
        batch: samples in this micro-batch.
        outside: returns the array of a value that is not in the arena.
    """
    arrays = {
        value.name: _view(arena, offsets, value, batch) if value.buffer else outside(value.name)
        for value in program.values.values()
    }
    calls = tuple(
        Call(
            step,
            tuple(arrays[name] if name else None for name in step.inputs),
            tuple(arrays[name] if name else None for name in step.outputs),
            arena.view(offsets.get(workspace_name(index), 0), (step.workspace_bytes,), np.uint8),
        )
        for index, step in enumerate(program.steps)
    )
    start, stop = program.body
    loads = [call.outputs[0] for call in calls if call.step.kind == LOAD]
    return Bound(
        calls[:start],
        calls[start:stop],
        calls[stop:],
        loads[0] if loads else None,
        {name: arrays[name] for name in program.accumulators},
        {part: arrays[name] for part, name in program.outputs.items()},
    )


def _view(arena: Arena, offsets: Mapping[str, int], value: Value, batch: int) -> Array:
    packed = DTYPE_BITS[value.dtype] < 8
    shape = stored_shape(Tensor(value.name, value.shape, value.dtype), batch)
    return arena.view(offsets[value.buffer], shape, np.uint8 if packed else value.dtype)
