"""Peak memory of one outer step, from the allocator's own events as torch's profiler records them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from edge_adapt.cloud.inner.base import MethodConfig
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.lite import LiteConfig
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.outer import METHODS, Batch, Meta, Method
from edge_adapt.cloud.parts.score import measure
from torch import nn

from ..conftest import benchmark_module
from .plain import random_batch, small_network

highest_bytes = benchmark_module("allocations").highest_bytes

FLAT: dict[str, dict[str, bool]] = {
    **{name: {} for name in ("fomaml", "fomaml++", "reptile", "leap", "imaml", "mrml")},
    "maml": {"first_order": True},
    "maml++": {"first_order": True, "checkpoint_steps": True},
    "p-meta": {"first_order": True, "checkpoint_steps": True},
}


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention of each sample": ("p-meta", {"attention_over": "sample"}),
    "attention on maps": ("p-meta", {"attention_masks": "maps"}),
    "checkpointed": ("maml++", {"checkpoint_steps": True}),
    "first order": ("maml++", {"first_order": True}),
}


def highest(method: Method, meta: Meta, batch: Batch) -> int:
    """Highest number of bytes alive at once in one outer step beyond those alive before."""
    return int(highest_bytes(lambda: method.meta_gradient(meta, batch, 0.0)))


@cache
def peak(name: str, steps: int, **settings: bool) -> int:
    """On the small network."""
    method = METHODS[name](small_network(), MethodConfig(inner_steps=steps, inner_step_size=0.01, **settings))
    meta, batch = method.init(0).to(torch.float64), random_batch(tasks=2, samples=30, queries=30)
    method.meta_gradient(meta, batch, 0.0)  # what libraries allocate once
    return highest(method, meta, batch)


@cache
def peak_with_lite(samples: int, lite: LiteConfig) -> int:
    """Second-order MAML with three steps on the small network, one task of `samples` support samples."""
    config = MethodConfig(inner_steps=3, inner_step_size=0.01)
    method = METHODS["maml"](small_network(), config, lite=lite)
    batch = replace(random_batch(tasks=1, samples=samples, queries=30), keys=((0, 0),))
    meta = method.init(0).to(torch.float64)
    method.meta_gradient(meta, batch, 0.0)
    return highest(method, meta, batch)


def peak_at_84_pixels(name: str) -> int:
    """4Conv, RGB, 5-way 1-shot with one query sample of each class, K = 5, float32."""
    network = Network(build_backbone("conv4", (3, 84, 84), 5, seed=0), (3, 84, 84))
    method = METHODS[name](network, MethodConfig(inner_steps=5, inner_step_size=0.01))
    images = torch.randn(2, 1, 5, 3, 84, 84, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(5)[None]
    return highest(method, method.init(0), Batch(images[0], labels, images[1], labels))


def test_the_meter_sees_second_order_memory_grow_with_the_steps() -> None:
    assert peak("maml", 20) > 5 * peak("maml", 2)


@pytest.mark.parametrize("name", FLAT)
def test_fifty_steps_take_no_more_memory_than_one(name: str) -> None:
    assert peak(name, 50, **FLAT[name]) <= 1.1 * peak(name, 1, **FLAT[name])


def test_with_lite_memory_hardly_grows_with_the_support_set():
    part = LiteConfig(h=8, chunk=10)
    assert peak_with_lite(200, part) <= 1.2 * peak_with_lite(50, part)
    assert peak_with_lite(200, LiteConfig()) > 3 * peak_with_lite(50, LiteConfig()), (
        "the exact gradient's does"
    )
    assert peak_with_lite(200, part) <= peak_with_lite(200, LiteConfig()) / 8


@cache
def heavy_peak(tasks: int, samples: int, **lite: int) -> int:
    """First-order MAML, one step, task by task; a million weights that three samples need few values for."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(128, 1024), nn.ReLU(), nn.Linear(1024, 900))
    config = MethodConfig(inner_steps=1, first_order=True, tasks_per_chunk=1)
    method = METHODS["maml"](Network(module.double(), (2, 8, 8)), config, LiteConfig(**lite))
    keys = tuple((0, index) for index in range(tasks))
    batch = replace(random_batch(tasks=tasks, samples=samples, queries=3), keys=keys)
    meta = method.init(0).to(torch.float64)
    method.meta_gradient(meta, batch, 0.0)
    return highest(method, meta, batch)


def test_with_lite_memory_does_not_grow_with_the_pieces_of_a_support_set() -> None:
    assert heavy_peak(1, 60, h=3, chunk=3, query_batch=3) <= 1.05 * heavy_peak(
        1, 6, h=3, chunk=3, query_batch=3
    )


def test_memory_does_not_grow_with_the_tasks_of_an_outer_step() -> None:
    assert heavy_peak(12, 3) <= 1.05 * heavy_peak(2, 3)


def test_every_method_but_those_that_differentiate_through_the_steps_is_flat() -> None:
    assert METHODS.keys() - FLAT == {"anil", "boil"}


def tensors_left_for_the_collector(work: Callable[[], object]) -> int:
    """Tensors in reference cycles after `work`, which Python frees some time later, or never."""
    work()  # what libraries make once
    gc.collect()
    gc.disable()
    try:
        work()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return sum(isinstance(value, torch.Tensor) for value in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_the_collector_of_cycles_finds_tensors() -> None:
    def cycle() -> None:
        held: list[object] = [torch.zeros(1)]
        held.append(held)

    assert tensors_left_for_the_collector(cycle) == 1


@pytest.mark.parametrize("case", [*METHODS, *VARIANTS])
def test_an_outer_step_leaves_no_cycles_behind(case: str) -> None:
    """They held the tasks of steps long done: 24 MB more at every step of 84 pixels, until Python looked for them."""
    name, settings = VARIANTS.get(case, (case, {}))
    method = METHODS[name](small_network(), MethodConfig(inner_steps=2, **settings))
    meta, batch = method.init(0).to(torch.float64), random_batch(tasks=1)
    assert tensors_left_for_the_collector(lambda: method.meta_gradient(meta, batch, 0.0)) == 0


def test_validation_leaves_no_cycles_behind() -> None:
    network, batch = small_network(), random_batch(tasks=1)
    method = METHODS["p-meta"](network, MethodConfig(inner_steps=2))
    meta = method.init(0).to(torch.float64)
    assert tensors_left_for_the_collector(lambda: measure(network, method.config, meta, [batch, batch])) == 0


def test_mrml_takes_half_of_mamls_memory_at_most_on_4conv_at_84_pixels() -> None:
    assert peak_at_84_pixels("mrml") <= peak_at_84_pixels("maml") / 2


@pytest.mark.parametrize("name", ["maml", "maml++", "p-meta"])
def test_checkpointed_steps_halve_the_memory_of_twenty_steps(name: str) -> None:
    assert peak(name, 20, checkpoint_steps=True) <= peak(name, 20) / 2
