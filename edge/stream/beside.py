"""What adapting by forward passes takes beside the network itself: reading the samples, small programs, the head."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..bundle.streams import HEAD, LINEAR
from ..plan.work import program_macs, work_of
from .passes import Passes

SAMPLE_SECONDS = 40e-6
VALUE_SECONDS = 2e-9
SCATTER_SECONDS = 1.2e-9
SOLVE_SECONDS = 0.25e-9
"""Of NumPy on one core of an x86 machine: for every sample in every pass, for every number of a sample as it is
preprocessed, and for every multiply-accumulate of sums of outer products and of factorising and inverting them."""


@dataclass(frozen=True)
class Reading:
    """The support set as the plan sees it.

    Attributes:
        samples: how many.
        classes: how many of the head's outputs they use.
        bytes: what is in memory of them: one sample, what reading it takes, and names and labels of all.
        seconds: about what reading all of them once takes.
    """

    samples: int
    classes: int
    bytes: int
    seconds: float


def beside_seconds(passes: Passes, reading: Reading) -> float:
    """Return a rough time for everything but the passes of all samples through the network."""
    shape = passes.streams.main.tensors[passes.streams.main.inputs["images"]].shape
    values = math.prod(int(axis) for axis in shape[1:])
    every_pass = reading.seconds + reading.samples * (SAMPLE_SECONDS + values * VALUE_SECONDS)
    scatter, solve = head_macs(passes, reading)
    head = scatter * SCATTER_SECONDS + solve * SOLVE_SECONDS
    return len(passes.large) * every_pass + head + _small_seconds(passes, reading.classes)


def beside_macs(passes: Passes, reading: Reading) -> int:
    """Return the multiply-accumulates of the programs that samples do not go through, and of the head."""
    counts = {one.name: reading.classes if one.name == HEAD else 1 for one in passes.every if not one.streams}
    small = sum(count * program_macs(passes.small[name]) for name, count in counts.items())
    return small + sum(head_macs(passes, reading))


def head_macs(passes: Passes, reading: Reading) -> tuple[int, int]:
    """Return the multiply-accumulates of sums over the samples, and of computing the head from them."""
    width, linear = passes.streams.width, passes.streams.head.kind == LINEAR
    if linear:
        return reading.samples * width, reading.classes * width
    once = width * (width + 2) // 2
    return (reading.samples + 3 * reading.classes) * once, reading.classes * 2 * width**3 // 3


def _small_seconds(passes: Passes, classes: int) -> float:
    rates = passes.target.rates
    runs = {name: classes if name == HEAD else 1 for name in passes.small}
    return sum(runs[name] * work_of(one, rates).seconds(1, 1) for name, one in passes.small.items())
