"""Peak memory of a computation on the CPU, from the allocator's own events as torch's profiler records them."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def highest_bytes(compute: Callable[[], object]) -> int:
    """Highest number of bytes alive at once in `compute()` beyond those alive before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        compute()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        highest = max(highest, alive)
    return highest
