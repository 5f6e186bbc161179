"""Planners: sizes and lifetimes to offsets and a peak. No files, no graphs, no plots.

A buffer is a list of `Segment`s: consecutive time spans, closed intervals, with one size each, at one
offset.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..lower.table import Segment

ALIGNMENT = 64
CLOSE = 1.002
VARIATIONS = 24
FRONT = 40
Profile = Sequence[Segment]


@dataclass(frozen=True)
class Layout:
    """Where everything goes: an offset per buffer, and the bytes from 0 to the highest end."""

    offsets: tuple[int, ...]
    peak: int


def plan_lifetimes(
    sizes: Sequence[int], opens: Sequence[int], closes: Sequence[int], alignment: int = 1
) -> Layout:
    """Place buffers of constant size, live from `opens[i]` to `closes[i]` inclusive."""
    spans = zip(sizes, opens, closes, strict=True)
    return plan_profiles([[Segment(first, last, size, "")] for size, first, last in spans], alignment)


def plan_naive(profiles: Sequence[Profile], alignment: int = 1) -> Layout:
    """Give every buffer memory of its own."""
    offsets, end, peak = [], 0, 0
    for profile in profiles:
        offset = _round_up(end, alignment)
        offsets.append(offset)
        end = offset + max(segment.bytes for segment in profile)
        peak = max(peak, end)
    return Layout(tuple(offsets), peak)


def plan_profiles(profiles: Sequence[Profile], alignment: int = 1) -> Layout:
    """Place every buffer at the lowest offset free for its lifetime, in several orders; keep the best.

    Orders by area, size, duration and time come first, then seeded variations of the first two, until the
    peak is within CLOSE of the largest sum of simultaneously live bytes, which nothing can beat, or at that
    sum with sizes rounded up to the alignment. Never worse than `plan_naive`; deterministic.
    """
    if not profiles:
        return Layout((), 0)
    heights = _heights(profiles)
    enough = max(live_bytes(profiles) * CLOSE, live_bytes(profiles, alignment))
    best = plan_naive(profiles, alignment)
    for order in _orders(profiles):
        if best.peak <= enough:
            break
        layout = _first_fit(order, heights, alignment)
        if layout.peak < best.peak:
            best = layout
    return best


def live_bytes(profiles: Sequence[Profile], multiple: int = 1) -> int:
    """Return the maximum over time of the sum of live bytes: a lower bound on any layout's peak.

    Sizes are rounded up to `multiple` first.
    """
    events: dict[int, int] = {}
    for profile in profiles:
        for segment in profile:
            size = _round_up(segment.bytes, multiple)
            events[segment.first] = events.get(segment.first, 0) + size
            events[segment.last + 1] = events.get(segment.last + 1, 0) - size
    live = peak = 0
    for time in sorted(events):
        live += events[time]
        peak = max(peak, live)
    return peak


def _orders(profiles: Sequence[Profile]) -> Iterator[list[int]]:
    """Yield the orders to try."""
    items = range(len(profiles))
    size = [max(s.bytes for s in profile) for profile in profiles]
    first = [profile[0].first for profile in profiles]
    last = [profile[-1].last for profile in profiles]
    area = [sum(s.bytes * (s.last - s.first + 1) for s in profile) for profile in profiles]
    by_area = sorted(items, key=lambda i: (-area[i], first[i]))
    by_size = sorted(items, key=lambda i: (-size[i], first[i]))
    yield from (by_area, by_size)
    yield sorted(items, key=lambda i: (first[i] - last[i], -size[i]))
    yield sorted(items, key=lambda i: (first[i], -size[i]))
    rng = random.Random(0)
    for round_ in range(VARIATIONS):
        yield _varied((by_area, by_size)[round_ % 2], rng)


def _varied(order: Sequence[int], rng: random.Random) -> list[int]:
    """Move a few of the first items, the ones that decide the peak, elsewhere among the first."""
    varied = list(order)
    front = min(len(varied), FRONT)
    for _ in range(rng.randint(1, 8)):
        varied.insert(rng.randrange(front), varied.pop(rng.randrange(front)))
    return varied


def _heights(profiles: Sequence[Profile]) -> NDArray[np.int64]:
    """Return [i, j]: the largest size of i while j is live, -1 where they are never live together."""
    segments = [segment for profile in profiles for segment in profile]
    starts = np.cumsum([0, *(len(profile) for profile in profiles[:-1])])
    first = np.array([segment.first for segment in segments])[:, None]
    last = np.array([segment.last for segment in segments])[:, None]
    size = np.array([segment.bytes for segment in segments], np.int64)[:, None]
    opens = np.array([profile[0].first for profile in profiles])
    closes = np.array([profile[-1].last for profile in profiles])
    together = (first <= closes) & (opens <= last)
    return np.asarray(np.maximum.reduceat(np.where(together, size, -1), starts, axis=0))


def _first_fit(order: Sequence[int], heights: NDArray[np.int64], alignment: int) -> Layout:
    """Place buffers one by one at the lowest offset where they meet none that was placed before."""
    offsets = [0] * len(order)
    peak = 0
    for position, item in enumerate(order):
        placed = np.array(order[:position], np.intp)
        placed = placed[heights[item, placed] >= 0]
        starts = np.array([offsets[i] for i in placed], np.int64)
        below = starts - heights[item, placed]  # at most here, the buffer ends where the placed one starts
        above = starts + heights[placed, item]  # from here on, it starts where the placed one ends
        offset = 0
        for index in np.argsort(below, kind="stable"):
            if offset <= below[index]:
                break
            offset = max(offset, _round_up(int(above[index]), alignment))
        offsets[item] = offset
        peak = max(peak, offset + int(heights[item, item]))
    return Layout(tuple(offsets), peak)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
