"""How much work a lowered adaptation is, and a rough time for it, to rank plans.

The target's rates decide between plans of one program, where only their proportion matters: fewer and longer
operations (a larger micro-batch) against extra work (selecting channels, recomputation).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..lower.table import Lowered, Slices, Step, StepProgram
from ..lower.target import Rates, Target

LITTLE = 1 << 10
DIGITS = 9
"""Seconds are rounded to that many decimals: sums in another order rank the same."""


@dataclass(frozen=True)
class Work:
    """Seconds of one step program: once, for every run of its body, for every sample.

    Attributes:
        written: bytes that the steps of the body write for one sample, those of large ones only.
        rates: the engine's.
    """

    once: float
    per_pass: float
    per_sample: float
    written: tuple[int, ...]
    rates: Rates

    def seconds(self, samples: int, batch: int) -> float:
        """Return the time for some samples, `batch` at a time."""
        passes = -(-samples // batch)
        far = sum(size for size in self.written if size * batch > self.rates.near_bytes)
        return self.once + passes * self.per_pass + samples * (self.per_sample + far * self.rates.far_byte)


def total_macs(lowered: Lowered) -> int:
    """Return the multiply-accumulates of all gradient steps over all samples."""
    prefix = 0 if lowered.prefix is None else program_macs(lowered.prefix)
    return lowered.samples * (prefix + sum(program_macs(lowered.programs[index]) for index in lowered.order))


def predicted_seconds(lowered: Lowered, target: Target) -> float:
    """Return a time for the whole adaptation, for ranking."""
    runs = [(one, lowered.order.count(number)) for number, one in enumerate(lowered.programs)]
    if lowered.prefix is not None:
        runs.append((lowered.prefix, 1))
    times = (count * work_of(one, target.rates).seconds(lowered.samples, one.batch) for one, count in runs)
    return round(sum(times), DIGITS)


def work_of(program: StepProgram, rates: Rates) -> Work:
    """Return the work of one step program."""
    start, stop = program.body
    body = program.steps[start:stop]
    calls = [_calls(step) for step in body]
    return Work(
        once=(len(program.steps) - len(body)) * rates.call,
        per_pass=sum(per_pass for per_pass, _ in calls) * rates.call,
        per_sample=sum(per_sample for _, per_sample in calls) * rates.call
        + program_macs(program) * rates.mac
        + sum(step.sample_bytes for step in body) * rates.byte
        + sum(_lean_macs(step) for step in body) * rates.lean_mac
        + sum(_in_tiles(step.slices, rates) for step in body if step.slices is not None),
        written=tuple(step.sample_bytes for step in body if step.sample_bytes > LITTLE),
        rates=rates,
    )


def _calls(step: Step) -> tuple[int, int]:
    """Return how many operations one step calls: whatever the batch, and for every sample."""
    inner = step.slices
    if inner is None:
        return 1, 0
    return inner.blocks * (len(inner.before) + len(inner.after)), inner.blocks * len(inner.each)


def _in_tiles(inner: Slices, rates: Rates) -> float:
    """Return the time one sample takes more than the values that come and go."""
    written = sum(step.sample_bytes for step in inner.each)
    return written * rates.tile_byte + rates.tile_mac * sum(
        step.macs for step in inner.each if step.kind.startswith("Conv")
    )


def _lean_macs(step: Step) -> int:
    """Return the multiply-accumulates of convolutions that use little workspace."""
    steps = (step,) if step.slices is None else step.slices.each
    return sum(one.macs for one in steps if one.attrs.get("lean"))


def program_macs(program: StepProgram) -> int:
    """Return the multiply-accumulates of one step program for one sample."""
    return sum(step.macs for step in program.steps)
