"""How much work a lowered adaptation is, and a rough time for it, to rank plans.

The constants are a small ARM or x86 core running NumPy; they decide between plans of one program, where
only their proportion matters: fewer and longer operations (a larger micro-batch) against extra work
(selecting channels).
"""

from __future__ import annotations

from ..lower.table import Lowered, StepProgram

SECONDS_PER_STEP = 20e-6
SECONDS_PER_MAC = 1 / 4e9
SECONDS_PER_BYTE = 1 / 2e9


def total_macs(lowered: Lowered) -> int:
    """Return the multiply-accumulates of all gradient steps over all samples."""
    return sum(lowered.samples * _macs(lowered.programs[index]) for index in lowered.order)


def predicted_seconds(lowered: Lowered) -> float:
    """Return a time for the whole adaptation, for ranking."""
    return sum(_step_seconds(lowered, lowered.programs[index]) for index in lowered.order)


def _step_seconds(lowered: Lowered, program: StepProgram) -> float:
    passes = -(-lowered.samples // lowered.micro_batch)
    start, stop = program.body
    outside = len(program.steps) - (stop - start)
    per_sample = _macs(program) * SECONDS_PER_MAC + _written_bytes(program) * SECONDS_PER_BYTE
    calls = passes * (stop - start) + outside
    return calls * SECONDS_PER_STEP + lowered.samples * per_sample


def _macs(program: StepProgram) -> int:
    return sum(step.macs for step in program.steps)


def _written_bytes(program: StepProgram) -> int:
    """Return the bytes that the body writes for one sample."""
    start, stop = program.body
    return sum(step.sample_bytes for step in program.steps[start:stop])
