"""What every engine offers, and the small protocols through which it gets weights and samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import EdgeAdaptError
from ..lower.table import Step
from ..plan.plan import Plan
from ..program import Program

Array = NDArray[Any]


class Weights(Protocol):
    """Where parameters come from."""

    def mapped(self, name: str) -> Array:
        """Return the tensor read-only, backed by the file where possible."""

    def copy(self, name: str) -> Array:
        """Return a private, writable copy of the tensor."""

    def give_back(self) -> None:
        """Let the memory of mapped tensors go where possible; they are read from the file again when needed."""


class Samples(Protocol):
    """Samples that can be written as network inputs; `SupportSet` and `QuerySet` are such."""

    def __len__(self) -> int: ...

    def fill(self, start: int, out: NDArray[np.float32]) -> None:
        """Write samples start, start+1, ... into `out`, float32 (m, ...)."""


class Support(Samples, Protocol):
    """Samples and what the loss reads of each; `SupportSet` is one."""

    def loss_inputs(self) -> Mapping[str, Array]:
        """Return arrays (n, ...) by input part of the program: `labels`, or `targets`, ..."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in use, outputs of the head beyond them are masked; none where the loss has no classes."""


@dataclass(frozen=True)
class Progress:
    """How far an adaptation is: gradient step `step` of `steps` (from 0), `samples_done` of `samples`.

    Computing what no step changes counts as half of the first step that is run.
    """

    step: int
    steps: int
    samples_done: int
    samples: int


@dataclass(frozen=True)
class Hooks:
    """Optional callbacks and switches of a run.

    Attributes:
        progress: called after every micro-batch.
        finished: called with (steps done, updated tensors, mean support loss before the step) after every
            finished gradient step; the arrays are the engine's own and change afterwards.
        watch: called after every step of prologue and body with (gradient step, first sample, step, output
            arrays).
        selections: recorded channel selections, `keep::LAYER::fw|bw` to 0/1 arrays (K, N, C), for programs
            whose attention has a `keep` input.
        measure: fill the arena with a sentinel first and report the highest byte that changed.
    """

    progress: Callable[[Progress], None] | None = None
    finished: Callable[[int, Mapping[str, Array], float], None] | None = None
    watch: Callable[[int, int, Step, Sequence[Array | None]], None] | None = None
    selections: Mapping[str, Array] = field(default_factory=dict)
    measure: bool = False


NO_HOOKS = Hooks()


@dataclass(frozen=True)
class Adaptation:
    """What an adaptation left behind.

    Attributes:
        updated: the tensors that were updated, by name, after `steps_done` gradient steps.
        losses: mean support loss before each gradient step that was run here.
        steps_done: gradient steps finished, those before `start_step` included.
        seconds: wall time.
        measured_dynamic_bytes: one more than the highest arena byte that changed; None if not measured.
        cpu_seconds: processor time, all threads; at one thread less than `seconds` where others were in the way.
    """

    updated: Mapping[str, Array]
    losses: tuple[float, ...]
    steps_done: int
    seconds: float
    measured_dynamic_bytes: int | None
    cpu_seconds: float = 0.0


class NonFiniteError(EdgeAdaptError):
    """A loss or gradient was NaN or infinite; `adaptation` holds the last finished step."""

    def __init__(self, message: str, adaptation: Adaptation) -> None:
        super().__init__(message)
        self.adaptation = adaptation


class AdaptationInterrupted(KeyboardInterrupt):
    """Ctrl-C during an adaptation; `adaptation` holds the last finished step, ready to be resumed."""

    def __init__(self, adaptation: Adaptation) -> None:
        super().__init__(f"interrupted after {adaptation.steps_done} finished steps")
        self.adaptation = adaptation


class Engine(Protocol):
    """Runs plans. Every engine gives the same numbers within rounding.

    Attributes:
        name: as in `engine_named`.
        plans: whether it keeps the plan's memory figures; the others take from a plan only which layers each
            step updates and the micro-batch.
    """

    name: str
    plans: bool

    def adapt(
        self,
        program: Program,
        plan: Plan,
        weights: Weights,
        support: Support,
        start_step: int = 0,
        hooks: Hooks = NO_HOOKS,
    ) -> Adaptation:
        """Run gradient steps `start_step` to `plan.steps - 1` and return the updated tensors.

        To resume, pass as `weights` a reader whose `copy` returns the tensors of the last finished step.

        Raises:
            SupportError: more samples or classes than the plan or the head allows.
            NonFiniteError: a loss or gradient is not finite; the last finished step is kept.
            AdaptationInterrupted: on KeyboardInterrupt; the last finished step is kept.
        """

    def predict(
        self, program: Program, weights: Weights, samples: Samples, micro_batch: int = 1
    ) -> NDArray[np.float32]:
        """Return the logits, float32 (n, ...); the caller masks unused classes.

        Raises:
            UsageError: `micro_batch` is no positive number.
        """
