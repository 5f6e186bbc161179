"""How much work a lowered adaptation is, and a rough time for it, to rank plans.

The target's rates decide between plans of one program, where only their proportion matters: fewer and longer
operations (a larger micro-batch) against extra work (selecting channels, recomputation).
"""

from __future__ import annotations

from ..lower.table import Lowered, Step, StepProgram
from ..lower.target import Rates, Target


def total_macs(lowered: Lowered) -> int:
    """Return the multiply-accumulates of all gradient steps over all samples."""
    prefix = 0 if lowered.prefix is None else _macs(lowered.prefix)
    return lowered.samples * (prefix + sum(_macs(lowered.programs[index]) for index in lowered.order))


def predicted_seconds(lowered: Lowered, target: Target) -> float:
    """Return a time for the whole adaptation, for ranking."""
    seconds = [_seconds(one, lowered.samples, target.rates) for one in lowered.programs]
    prefix = 0.0 if lowered.prefix is None else _seconds(lowered.prefix, lowered.samples, target.rates)
    return prefix + sum(seconds[index] for index in lowered.order)


def _seconds(program: StepProgram, samples: int, rates: Rates) -> float:
    passes = -(-samples // program.batch)
    start, stop = program.body
    body = program.steps[start:stop]
    calls = sum(_calls(step, program.batch) for step in body) * passes + len(program.steps) - len(body)
    written = sum(step.sample_bytes for step in body)
    return calls * rates.call + samples * (_macs(program) * rates.mac + written * rates.byte)


def _calls(step: Step, batch: int) -> int:
    """Return how many operations one step calls."""
    inner = step.slices
    if inner is None:
        return 1
    return inner.blocks * (len(inner.before) + batch * len(inner.each) + len(inner.after))


def _macs(program: StepProgram) -> int:
    return sum(step.macs for step in program.steps)
