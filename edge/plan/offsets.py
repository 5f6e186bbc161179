"""Planners: sizes and lifetimes to offsets and a peak. No files, no graphs, no plots.

A buffer is a list of `Segment`s: consecutive time spans, closed intervals, with one size each, at one
offset.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..lower.table import Segment

ALIGNMENT = 64
CLOSE = 1.002
VARIATIONS = 48
FRONT = 40
SMALL = 500
Profile = Sequence[Segment]
Neighbours = list[tuple[int, int, int]]


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


def plan_profiles(profiles: Sequence[Profile], alignment: int = 1, enough: int = 0) -> Layout:
    """Place every buffer at the lowest offset free for its lifetime.

    The large buffers come first, by area, size, duration and time, then in seeded variations of the first two
    orders, until their peak is at most `enough`, or within CLOSE of the largest sum of simultaneously live bytes,
    which nothing can beat, or at that sum with sizes rounded up to the alignment; the small ones fill the gaps of
    the best. Never worse than `plan_naive`; deterministic.
    """
    if not profiles:
        return Layout((), 0)
    live = live_bytes(profiles)
    stop = max(live * CLOSE, live_bytes(profiles, alignment), enough)
    large = [i for i, profile in enumerate(profiles) if max(s.bytes for s in profile) > live / SMALL]
    best = _best_of_large([profiles[i] for i in large], alignment, stop)
    layout = _fill_gaps(profiles, dict(zip(large, best.offsets, strict=True)), alignment)
    naive = plan_naive(profiles, alignment)
    return layout if layout.peak <= naive.peak else naive


def _best_of_large(profiles: Sequence[Profile], alignment: int, stop: float) -> Layout:
    """Return the best of several orders, the first that is good enough."""
    neighbours = _neighbours(profiles)
    best: Layout | None = None
    for order in _orders(profiles):
        layout = _first_fit(order, profiles, neighbours, alignment)
        if best is None or layout.peak < best.peak:
            best = layout
        if best.peak <= stop:
            break
    return best or Layout((), 0)


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
    by_area = sorted(items, key=lambda i: (-_area(profiles[i]), first[i]))
    by_size = sorted(items, key=lambda i: (-size[i], first[i]))
    yield from (by_area, by_size)
    yield sorted(items, key=lambda i: (first[i] - last[i], -size[i]))
    yield sorted(items, key=lambda i: (first[i], -size[i]))
    rng = random.Random(0)
    for round_ in range(VARIATIONS):
        yield _varied((by_area, by_size)[round_ % 2], rng)


def _area(profile: Profile) -> int:
    return sum(s.bytes * (s.last - s.first + 1) for s in profile)


def _varied(order: Sequence[int], rng: random.Random) -> list[int]:
    """Move a few of the first items, the ones that decide the peak, elsewhere among the first."""
    varied = list(order)
    front = min(len(varied), FRONT)
    for _ in range(rng.randint(1, 8)):
        varied.insert(rng.randrange(front), varied.pop(rng.randrange(front)))
    return varied


def _neighbours(profiles: Sequence[Profile]) -> list[Neighbours]:
    """Return for every buffer i the buffers j live with it at some time, and most bytes of either meanwhile."""
    opens = np.array([profile[0].first for profile in profiles])
    closes = np.array([profile[-1].last for profile in profiles])
    sizes = [profile[0].bytes if len(profile) == 1 else -1 for profile in profiles]
    result: list[Neighbours] = []
    for i, profile in enumerate(profiles):
        together = np.flatnonzero((opens <= closes[i]) & (closes >= opens[i])).tolist()
        own = sizes[i]
        result.append(
            [
                (
                    j,
                    own if own >= 0 else _height(profile, profiles[j]),
                    sizes[j] if sizes[j] >= 0 else _height(profiles[j], profile),
                )
                for j in together
                if j != i
            ]
        )
    return result


def _height(profile: Profile, other: Profile) -> int:
    """Return the largest size of a buffer while another is live."""
    first, last = other[0].first, other[-1].last
    return max(s.bytes for s in profile if s.first <= last and first <= s.last)


def _first_fit(
    order: Sequence[int], profiles: Sequence[Profile], neighbours: Sequence[Neighbours], alignment: int
) -> Layout:
    """Place buffers one by one at the lowest offset where they meet none that was placed before."""
    offsets = [-1] * len(profiles)
    peak = 0
    for item in order:
        placed = [
            (offsets[j] - own, offsets[j] + other) for j, own, other in neighbours[item] if offsets[j] >= 0
        ]
        placed.sort()
        offset = 0
        for below, above in placed:  # up to below, the buffer ends where the placed one starts
            if offset <= below:
                break
            if above > offset:  # from there on, it starts where the placed one ends
                offset = _round_up(above, alignment)
        offsets[item] = offset
        peak = max(peak, offset + max(segment.bytes for segment in profiles[item]))
    return Layout(tuple(offsets), peak)


def _fill_gaps(profiles: Sequence[Profile], placed: Mapping[int, int], alignment: int) -> Layout:
    """Place what is not placed yet, largest area first, each at the lowest offset that is free."""
    counts = [len(profile) for profile in profiles]
    owner = np.repeat(np.arange(len(profiles)), counts)
    first, last, size = (
        np.array([getattr(s, part) for profile in profiles for s in profile], np.int64)
        for part in ("first", "last", "bytes")
    )
    offset = np.full(len(owner), -1, np.int64)
    for item, place in placed.items():
        offset[owner == item] = place
    result = dict(placed)
    others = [i for i in range(len(profiles)) if i not in placed]
    for item in sorted(others, key=lambda i: (-_area(profiles[i]), profiles[i][0].first)):
        below, above = [], []
        for span in profiles[item]:
            met = np.flatnonzero((first <= span.last) & (last >= span.first) & (offset >= 0))
            below.append(offset[met] - span.bytes)
            above.append(offset[met] + size[met])
        result[item] = _lowest(np.concatenate(below), np.concatenate(above), alignment)
        start = int(np.searchsorted(owner, item))
        offset[start : start + counts[item]] = result[item]
    ends = (result[i] + max(s.bytes for s in profile) for i, profile in enumerate(profiles))
    return Layout(tuple(result[i] for i in range(len(profiles))), max(ends))


def _lowest(below: NDArray[np.int64], above: NDArray[np.int64], alignment: int) -> int:
    """Return the lowest multiple of the alignment that lies in none of the open intervals (below, above)."""
    order = np.argsort(below, kind="stable")
    ends = np.maximum.accumulate(np.concatenate(([0], above[order])))
    starts = -(-ends // alignment) * alignment
    free = np.flatnonzero(starts[:-1] <= below[order])
    return int(starts[free[0]] if len(free) else starts[-1])


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
