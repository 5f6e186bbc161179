"""Peak memory of one outer step, from the allocator's own events as torch's profiler records them."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from edge_adapt.cloud.inner.base import MethodConfig
from edge_adapt.cloud.outer import METHODS
from torch.profiler import ProfilerActivity, profile

from .plain import random_batch, small_network

FLAT = ("fomaml", "fomaml++", "reptile", "leap", "imaml", "mrml")


@cache
def peak(name: str, steps: int, **settings: bool) -> int:
    """Highest number of bytes alive at once beyond those alive before."""
    method = METHODS[name](small_network(), MethodConfig(inner_steps=steps, inner_step_size=0.01, **settings))
    meta, batch = method.init(0).to(torch.float64), random_batch(tasks=2, samples=30, queries=30)
    method.meta_gradient(meta, batch, 0.0)  # what libraries allocate once
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        method.meta_gradient(meta, batch, 0.0)
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        highest = max(highest, alive)
    return highest


def test_the_meter_sees_second_order_memory_grow_with_the_steps() -> None:
    assert peak("maml", 20) > 5 * peak("maml", 2)


@pytest.mark.parametrize("name", FLAT)
def test_fifty_steps_take_no_more_memory_than_one(name: str) -> None:
    assert peak(name, 50) <= 1.1 * peak(name, 1)


def test_checkpointed_steps_halve_the_memory_of_twenty_steps() -> None:
    assert peak("maml", 20, checkpoint_steps=True) <= peak("maml", 20) / 2
    assert peak("maml++", 20, checkpoint_steps=True) <= peak("maml++", 20) / 2
