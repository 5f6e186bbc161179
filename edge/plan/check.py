"""An independent check of a layout: shares no code with the planners and looks at every instant."""

from __future__ import annotations

from collections.abc import Sequence

from ..lower.table import Segment


class OverlapError(AssertionError):
    """A layout puts two live buffers on the same byte, or outside the arena: a bug of the planner."""


def check_plan(
    profiles: Sequence[Sequence[Segment]], offsets: Sequence[int], peak: int, alignment: int = 1
) -> None:
    """Raise OverlapError unless at every instant all live buffers lie apart and inside [0, peak)."""
    if len(profiles) != len(offsets):
        raise OverlapError(f"{len(profiles)} buffers but {len(offsets)} offsets")
    live: dict[int, list[tuple[int, int, int]]] = {}
    for number, (profile, offset) in enumerate(zip(profiles, offsets, strict=True)):
        if offset < 0 or offset % alignment:
            raise OverlapError(f"buffer {number} starts at {offset}, expected a multiple of {alignment}")
        for segment in profile:
            for instant in range(segment.first, segment.last + 1):
                live.setdefault(instant, []).append((offset, offset + segment.bytes, number))
    for instant, ranges in live.items():
        _check_instant(instant, sorted(ranges), peak)


def _check_instant(instant: int, ranges: list[tuple[int, int, int]], peak: int) -> None:
    end, owner = 0, -1
    for start, stop, number in ranges:
        if start < end:
            raise OverlapError(f"step {instant}: buffers {owner} and {number} both use byte {start}")
        if stop > peak:
            raise OverlapError(f"step {instant}: buffer {number} ends at {stop}, the peak is {peak}")
        if stop > end:
            end, owner = stop, number
