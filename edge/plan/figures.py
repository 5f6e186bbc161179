"""What is known of a way to run an adaptation before its buffers are placed, for every micro-batch at once.

One lowering tells how the live bytes at every step and the work grow with the micro-batch, as long as the steps stay
the same. Tiling may choose others, which makes these figures estimates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..lower import Lowered, Target
from ..lower.choice import CACHED_SUFFIX
from ..lower.table import Buffer, StepProgram
from .offsets import ALIGNMENT
from .work import DIGITS, Work, work_of

Bytes = NDArray[np.int64]


@dataclass(frozen=True)
class ProgramFigures:
    """Of one step program.

    Attributes:
        runs: how often it is run over all samples.
        batch: its batch where that does not follow the micro-batch.
        work: in seconds.
        constant: live bytes at every step that do not depend on the batch.
        early: those of them that a single micro-batch does not need yet (accumulators nobody has written to).
        per_sample: live bytes at every step for each sample of the batch.
    """

    runs: int
    batch: int | None
    work: Work
    constant: Bytes
    early: Bytes
    per_sample: Bytes

    def live_bytes(self, samples: int, micro_batch: int) -> int:
        """Return the most bytes that are live at once: no layout needs less."""
        batch = self.batch or micro_batch
        constant = self.constant - self.early if batch >= samples else self.constant
        return int((constant + batch * self.per_sample).max(initial=0))

    def seconds(self, samples: int, micro_batch: int) -> float:
        """Return the predicted time of all its runs."""
        return self.runs * self.work.seconds(samples, self.batch or micro_batch)


@dataclass(frozen=True)
class Figures:
    """Of all step programs together; `cached_bytes`: what lies in the arena beside each of them."""

    samples: int
    cached_bytes: int
    programs: tuple[ProgramFigures, ...]

    def live_bytes(self, micro_batch: int) -> int:
        """Return a lower bound on the arena."""
        return self.cached_bytes + max(one.live_bytes(self.samples, micro_batch) for one in self.programs)

    def seconds(self, micro_batch: int) -> float:
        """Return the predicted time of the adaptation, that of its plan."""
        return round(sum(one.seconds(self.samples, micro_batch) for one in self.programs), DIGITS)


def figures_of(lowered: Lowered, target: Target) -> Figures:
    """Return the figures of a lowered adaptation."""
    runs = [(one, lowered.order.count(number)) for number, one in enumerate(lowered.programs)]
    follows = lowered.choice.schedule != CACHED_SUFFIX
    programs = [_program_figures(one, count, follows, target) for one, count in runs]
    if lowered.prefix is not None:
        programs.append(_program_figures(lowered.prefix, 1, True, target))
    cached = sum(-(-cache.bytes // ALIGNMENT) * ALIGNMENT for cache in lowered.caches)
    return Figures(lowered.samples, cached, tuple(programs))


def _program_figures(program: StepProgram, runs: int, follows: bool, target: Target) -> ProgramFigures:
    steps = len(program.steps)
    grows = {b.name for b in program.buffers if follows and _batched(program, b)}
    accumulators = {program.values[name].buffer for name in program.accumulators}
    return ProgramFigures(
        runs,
        None if follows else program.batch,
        work_of(program, target.rates),
        _live([b for b in program.buffers if b.name not in grows], steps),
        _early([b for b in program.buffers if b.name in accumulators], program),
        _live([b for b in program.buffers if b.name in grows], steps) // program.batch,
    )


def _batched(program: StepProgram, buffer: Buffer) -> bool:
    value = program.values.get(buffer.name)
    return value is not None and value.shape[:1] == ("N",)


def _live(buffers: list[Buffer], steps: int) -> Bytes:
    change = np.zeros(steps + 1, np.int64)
    for buffer in buffers:
        for segment in buffer.segments:
            change[segment.first] += segment.bytes
            change[segment.last + 1] -= segment.bytes
    return np.cumsum(change)[:-1]


def _early(accumulators: list[Buffer], program: StepProgram) -> Bytes:
    """Return the bytes of accumulators before the first step of the body that writes them."""
    start, stop = program.body
    written: dict[str, int] = {}
    for index in range(start, stop):
        for name in program.steps[index].outputs:
            if name in program.values:
                written.setdefault(program.values[name].buffer, index)
    early = np.zeros(len(program.steps), np.int64)
    for buffer in accumulators:
        early[buffer.first : max(written.get(buffer.name, 0), buffer.first)] += buffer.bytes
    return early
