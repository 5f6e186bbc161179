"""What the budget search chooses between, in the order in which it prefers it.

Caches in 16 bits are given up before saved maps in 8 bits, although the forward pass reads caches: on most tasks they
move the logits less (benchmarks/byte_storage.py measures both, docs/memory.md has the numbers).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..errors import UsageError
from ..lower.choice import ACCUMULATE, CACHED_SUFFIX, FLOAT_BITS, SCHEDULES, STORAGES, TILINGS, Choice

CAP_CUTS = (0.0, 0.25, 0.5, 0.75)
DOMAINS: Mapping[str, tuple[Any, ...]] = {
    "schedule": SCHEDULES,
    "storage": STORAGES,
    "saved_bits": (FLOAT_BITS, 8),
    "cache_bits": (FLOAT_BITS, 16),
    "recompute": (False, True),
    "tiling": TILINGS,
}
"""The values of every dimension but the micro-batch; the last one needs least memory."""


@dataclass(frozen=True)
class Fixed:
    """Dimensions of `Choice` that are not searched; None: all values are tried."""

    micro_batch: int | None = None
    schedule: str | None = None
    storage: str | None = None
    saved_bits: int | None = None
    cache_bits: int | None = None
    recompute: bool | None = None
    tiling: str | None = None


@dataclass(frozen=True)
class Space:
    """The values that are tried, dimension by dimension.

    Attributes:
        values: values by dimension, as in `DOMAINS`.
        micro_batches: in ascending order.
    """

    values: Mapping[str, tuple[Any, ...]]
    micro_batches: tuple[int, ...]

    def bits(self) -> list[tuple[int, int]]:
        """Return (saved bits, cache bits), best first: 8-bit saved maps are worse than 16-bit caches."""
        cached = CACHED_SUFFIX in self.values["schedule"]
        caches = self.values["cache_bits"] if cached else self.values["cache_bits"][:1]
        return list(product(self.values["saved_bits"], caches))

    def families(self, bits: tuple[int, int], storages: Sequence[str]) -> list[Choice]:
        """Return all choices with these bits, for the smallest micro-batch."""
        saved_bits, cache_bits = bits
        schedules = [s for s in self.values["schedule"] if cache_bits == FLOAT_BITS or s == CACHED_SUFFIX]
        rest = product(schedules, storages, self.values["recompute"], self.values["tiling"])
        return [
            Choice(1, schedule, storage, saved_bits, cache_bits, recompute, tiling)
            for schedule, storage, recompute, tiling in rest
        ]

    def leanest(self, bits: tuple[int, int], storages: Sequence[str]) -> list[Choice]:
        """Return those of `families` that may need least memory.

        Per schedule and storage: with everything done for it, and with nothing, where the step table is smallest.
        """
        ways = [(self.values["recompute"][end], self.values["tiling"][end]) for end in (-1, 0)]
        return [one for one in self.families(bits, storages) if (one.recompute, one.tiling) in ways]

    def storages(self, sparse: bool) -> tuple[str, ...]:
        """Return the storages that differ: without kept channels sparse storage is dense storage."""
        found = self.values["storage"]
        return found if sparse or len(found) == 1 else found[:1]


def space_of(samples: int, fixed: Fixed) -> Space:
    """Return the space with some dimensions fixed.

    Raises:
        UsageError: a value that its dimension does not have.
    """
    values = {}
    for name, domain in DOMAINS.items():
        wanted = getattr(fixed, name)
        if wanted is not None and wanted not in domain:
            raise UsageError(f"{name}: expected one of {', '.join(map(str, domain))}, got {wanted!r}")
        values[name] = domain if wanted is None else (wanted,)
    if fixed.schedule == ACCUMULATE and fixed.cache_bits not in (None, FLOAT_BITS):
        raise UsageError(
            f"cache_bits: {fixed.cache_bits} needs the schedule {CACHED_SUFFIX!r}, got {ACCUMULATE!r}"
        )
    size = fixed.micro_batch
    if size is not None and size < 1:
        raise UsageError(f"micro_batch: expected 1 or more, got {size}")
    return Space(values, tuple(micro_batches(samples) if size is None else [min(size, samples)]))


def micro_batches(samples: int) -> list[int]:
    """Return for every possible number of passes the smallest micro-batch that needs no more."""
    root = math.isqrt(samples - 1)
    return sorted({1}.union(*({n + 1, (samples - 1) // n + 1} for n in range(1, root + 1))))
