"""Planners against an independent checker, and the checker against layouts that are wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from edge_adapt.edge.lower.table import Segment
from edge_adapt.edge.plan.check import OverlapError, check_plan
from edge_adapt.edge.plan.offsets import Layout, live_bytes, plan_lifetimes, plan_naive, plan_profiles

Profile = list[Segment]
Planner = Callable[[Sequence[Profile], int], Layout]
SETS = 1000


def flat(first: int, last: int, size: int) -> Profile:
    return [Segment(first, last, size, "working")]


def random_profiles(seed: int) -> list[Profile]:
    rng = random.Random(seed)
    profiles = []
    for _ in range(rng.randint(1, 40)):
        first = rng.randrange(40)
        profiles.append(flat(first, first + rng.randint(0, rng.choice([2, 10, 40])), rng.randint(0, 5000)))
    return profiles


def brute_force_live_bytes(profiles: list[Profile]) -> int:
    return max(sum(s.bytes for p in profiles for s in p if s.first <= t <= s.last) for t in range(100))


@pytest.mark.parametrize("planner", [plan_profiles, plan_naive])
@pytest.mark.parametrize("alignment", [1, 64])
def test_no_two_live_buffers_overlap(planner: Planner, alignment: int) -> None:
    for seed in range(200):
        profiles = random_profiles(seed)
        layout = planner(profiles, alignment)
        check_plan(profiles, layout.offsets, layout.peak, alignment)


def test_over_1000_random_sets_the_peak_is_near_the_live_bytes_and_never_above_naive() -> None:
    ratios = []
    for seed in range(SETS):
        profiles = random_profiles(seed)
        first, last = [p[0].first for p in profiles], [p[0].last for p in profiles]
        layout = plan_lifetimes([p[0].bytes for p in profiles], first, last)
        check_plan(profiles, layout.offsets, layout.peak)
        assert layout.peak <= plan_naive(profiles).peak
        ratios.append(layout.peak / max(1, brute_force_live_bytes(profiles)))
    assert len(ratios) == SETS
    assert min(ratios) >= 1 or min(ratios) == 0  # 0: a set of empty buffers
    assert sum(ratios) / SETS <= 1.15


def test_live_bytes_equal_a_count_at_every_instant() -> None:
    for seed in range(50):
        profiles = random_profiles(seed)
        assert live_bytes(profiles) == brute_force_live_bytes(profiles)


def test_buffers_that_follow_each_other_share_memory() -> None:
    assert plan_lifetimes([100, 100, 100], [0, 2, 4], [1, 3, 5]).peak == 100


def test_a_closed_interval_still_holds_its_last_step() -> None:
    assert plan_lifetimes([100, 100], [0, 1], [1, 2]).peak == 200


def test_memory_that_a_shrinking_buffer_gives_up_is_used_again() -> None:
    shrinking = [Segment(0, 1, 400, "working"), Segment(2, 9, 100, "saved")]
    layout = plan_profiles([shrinking, flat(2, 9, 300)])
    assert layout.peak == 400
    check_plan([shrinking, flat(2, 9, 300)], layout.offsets, layout.peak)


def test_random_staircases_never_overlap() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        profiles = []
        for _ in range(rng.randint(2, 20)):
            cuts = sorted(rng.sample(range(30), rng.randint(2, 5)))
            profiles.append([Segment(a, b - 1, rng.randint(1, 999), "saved") for a, b in pairwise(cuts)])
        layout = plan_profiles(profiles, 16)
        check_plan(profiles, layout.offsets, layout.peak, 16)
        assert layout.peak <= plan_naive(profiles, 16).peak


def test_no_buffers_need_no_memory() -> None:
    assert plan_profiles([]) == Layout((), 0)


@pytest.mark.parametrize(
    ("offsets", "peak", "alignment", "message"),
    [
        ((0, 99), 300, 1, "both use byte 99"),
        ((0, 100), 199, 1, "ends at 200, the peak is 199"),
        ((0, 130), 300, 64, "starts at 130, expected a multiple of 64"),
        ((0,), 300, 1, "2 buffers but 1 offsets"),
    ],
)
def test_the_checker_refuses_wrong_layouts(
    offsets: tuple[int, ...], peak: int, alignment: int, message: str
) -> None:
    with pytest.raises(OverlapError, match=message):
        check_plan([flat(0, 3, 100), flat(3, 5, 100)], offsets, peak, alignment)
