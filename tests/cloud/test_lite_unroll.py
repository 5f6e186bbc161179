"""LITE in the gradient family: exact steps, unbiased outer gradients, refusals (memory: test_outer_memory)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, count, product
from math import prod

import pytest
import torch
from edge_adapt.cloud.inner.base import Batch, Meta
from edge_adapt.cloud.inner.lite_unroll import LiteUnroll
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.inner.unroll import Unroll
from edge_adapt.cloud.lite import LiteConfig, draw, generator_of
from edge_adapt.cloud.losses import SQUARED_ERROR
from edge_adapt.cloud.outer import METHODS, MethodConfig
from torch import Tensor, nn

from .plain import random_batch, small_network

SAMPLES, H, STEPS = 6, 2, 3
SHAPE = (1, 2, 2)
UNROLLED = ("maml", "maml++", "anil", "boil", "p-meta")
PMETA = {
    "attention": {},
    "attention of each sample": {"attention_over": "sample"},
    "no attention": {"attention": False},
    "channels": {"attention": False, "channel_alpha": True},
    "checkpointed": {"checkpoint_steps": True},
    "first order": {"first_order": True},
    "first order, checkpointed": {"first_order": True, "checkpoint_steps": True},
    "every step's loss": {"multi_step_until": 0.9},
}


def keyed(batch: Batch, seed: int = 0) -> Batch:
    return replace(batch, keys=tuple((seed, t) for t in range(len(batch))))


def smooth_network() -> Network:
    """Two fully connected layers with a smooth function between: fast on thousands of tasks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(prod(SHAPE), 5), nn.Softplus(), nn.Linear(5, 3))
    return Network(module.double(), SHAPE)


Rows = tuple[int, ...]


def rows_drawn(key: tuple[int, int], h: int, labels: Tensor | None = None) -> tuple[Rows, ...]:
    """The samples that each of three steps draws."""
    subsets = [draw(SAMPLES, h, generator_of(key, 0, k), labels) for k in range(STEPS)]
    return tuple(tuple(subset.rows.tolist()) for subset in subsets)


def keys_of_all_draws(
    ways: Sequence[Rows], h: int, labels: Tensor | None = None
) -> tuple[tuple[int, int], ...]:
    """One key for each sequence of draws that three steps can make, of these ways to draw."""
    found: dict[tuple[Rows, ...], tuple[int, int]] = {}
    for index in count():
        found.setdefault(rows_drawn((7, index), h, labels), (7, index))
        if len(found) == len(ways) ** STEPS:
            break
    assert found.keys() == {*product(ways, repeat=STEPS)}
    return tuple(found.values())


def same_task(times: int) -> Batch:
    """One random task, many times."""
    generator = torch.Generator().manual_seed(3)
    support = torch.randn(1, SAMPLES, *SHAPE, dtype=torch.float64, generator=generator)
    query = torch.randn(1, 4, *SHAPE, dtype=torch.float64, generator=generator)
    labels = torch.arange(SAMPLES).remainder(3)[None]
    values = (support, labels, query, labels[:, :4])
    return Batch(*(value.expand(times, *value.shape[1:]) for value in values))


@pytest.fixture(scope="module")
def every_draw() -> Batch:
    """The same task with every draw of three steps, 15^3 of them."""
    keys = keys_of_all_draws([*combinations(range(SAMPLES), H)], H)
    return replace(same_task(len(keys)), keys=keys)


def gradient(name: str, network: Network, batch: Batch, lite: LiteConfig, **settings) -> dict[str, Tensor]:
    config = MethodConfig(inner_steps=STEPS, inner_step_size=0.4, tasks_per_chunk=len(batch), **settings)
    method = METHODS[name](network, config, lite=lite)
    return method.meta_gradient(method.init(0).to(torch.float64), batch, 0.5).grads


def assert_close(found: dict[str, Tensor], truth: dict[str, Tensor], tolerance: float) -> None:
    scale = max(float(value.abs().max()) for value in truth.values())
    for name, value in truth.items():
        assert float((found[name] - value).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize("name", ["maml", "maml++", "anil", "boil"])
def test_the_mean_over_all_draws_of_all_steps_is_the_exact_gradient(name, every_draw):
    truth = gradient(name, smooth_network(), same_task(1), LiteConfig())
    mean = gradient(name, smooth_network(), every_draw, LiteConfig(h=H, chunk=4))
    assert_close(mean, truth, 1e-10)


def test_that_mean_is_exact_for_the_loss_after_every_step_in_checkpointed_steps_and_with_attention(
    every_draw,
):
    settings = {"multi_step_until": 0.9, "checkpoint_steps": True, "rho_fw": 0.0, "bw_input": "raw"}
    truth = gradient("p-meta", smooth_network(), same_task(1), LiteConfig(), **settings)
    assert_close(gradient("p-meta", smooth_network(), every_draw, LiteConfig(h=H), **settings), truth, 1e-10)


def test_draws_by_class_are_weighted_by_class():
    """Of two samples of each of three classes four are drawn: both of the first, one of each other."""
    ways = [tuple(sorted((0, 3, one, two))) for one in (1, 4) for two in (2, 5)]
    keys = keys_of_all_draws(ways, 4, same_task(1).support_y[0])
    batch = replace(same_task(len(keys)), keys=keys)
    truth = gradient("maml", smooth_network(), same_task(1), LiteConfig())
    mean = gradient("maml", smooth_network(), batch, LiteConfig(h=4, stratified=True))
    assert_close(mean, truth, 1e-10)


def test_one_draw_for_all_steps_would_be_biased(every_draw):
    """The enumeration can tell: the 15 tasks whose steps drew the same samples miss the exact gradient."""
    shared = [key for key in every_draw.keys if len(set(rows_drawn(key, H))) == 1]
    assert len(shared) == 15
    truth = gradient("maml", smooth_network(), same_task(1), LiteConfig())
    found = gradient("maml", smooth_network(), replace(same_task(15), keys=tuple(shared)), LiteConfig(h=H))
    with pytest.raises(AssertionError):
        assert_close(found, truth, 1e-2)


@pytest.mark.parametrize("case", PMETA)
@pytest.mark.parametrize("stratified", [False, True])
def test_of_all_samples_the_gradient_is_the_exact_one(case, stratified):
    network, batch = small_network(), keyed(random_batch())
    truth = gradient("p-meta", network, batch, LiteConfig(), **PMETA[case])
    lite = LiteConfig(h=SAMPLES, stratified=stratified, chunk=4, query_batch=2)
    assert_close(gradient("p-meta", network, batch, lite, **PMETA[case]), truth, 1e-12)


@pytest.mark.parametrize("name", UNROLLED)
def test_every_method_that_differentiates_through_its_steps_takes_it(name):
    network, batch = small_network(), keyed(random_batch())
    truth = gradient(name, network, batch, LiteConfig())
    assert_close(gradient(name, network, batch, LiteConfig(h=SAMPLES)), truth, 1e-12)
    parts = gradient(name, network, batch, LiteConfig(h=H))
    assert any(not torch.allclose(parts[key], truth[key], rtol=1e-3) for key in truth), "is H a part?"


def steps(unroll: Unroll, meta: Meta) -> Iterator[dict[str, Tensor]]:
    weights = unroll.weights
    for k, alpha in enumerate(meta.alpha):
        weights = unroll.step(weights, alpha, k).weights
        yield weights


@pytest.mark.parametrize("case", PMETA)
@pytest.mark.parametrize(
    "lite", [LiteConfig(h=1, chunk=1), LiteConfig(h=4, chunk=5, stratified=True)], ids=str
)
def test_the_weights_after_each_step_are_exact_whatever_was_drawn(case, lite):
    network, batch = small_network(), keyed(random_batch())
    config = MethodConfig(inner_steps=STEPS, inner_step_size=0.4, **PMETA[case])
    meta = METHODS["p-meta"](network, config).init(0).to(torch.float64)
    learned = {name: value.requires_grad_() for name, value in meta.learned.items()}
    layers = tuple(range(len(network.layers)))
    exact = Unroll(network, config, learned, layers, batch, config.first_order)
    ours = LiteUnroll(network, config, lite, learned, layers, batch, config.first_order)
    for found, truth in zip(steps(ours, meta), steps(exact, meta), strict=True):
        for name, value in truth.items():
            torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_queries_in_parts_have_the_same_gradient(name):
    network, batch = small_network(), random_batch(queries=7)
    truth = gradient(name, network, batch, LiteConfig())
    assert_close(gradient(name, network, batch, LiteConfig(query_batch=3)), truth, 1e-12)


def test_draws_depend_on_the_tasks_key_and_nothing_else():
    network, batch = small_network(), keyed(random_batch())
    lite = LiteConfig(h=H)
    first = gradient("maml", network, batch, lite)
    torch.rand(3)  # torch's own random numbers play no part
    again = gradient("maml", network, batch, lite)
    alone = [gradient("maml", network, batch.chunk(t, t + 1), lite) for t in range(len(batch))]
    other = gradient("maml", network, keyed(batch, seed=1), lite)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    mean = {key: torch.stack([one[key] for one in alone]).mean(0) for key in first}
    assert_close(mean, first, 1e-12)
    assert any(not torch.allclose(value, other[key]) for key, value in first.items())


def test_too_large_a_part_and_a_batch_without_keys_are_refused():
    batch = random_batch()
    with pytest.raises(ValueError, match=r"lite\.h: 7 asked for, but a task's support set has 6 samples"):
        gradient("maml", small_network(), keyed(batch), LiteConfig(h=7))
    with pytest.raises(ValueError, match=r"lite\.h: a batch of 3 tasks needs as many keys, got 0"):
        gradient("maml", small_network(), batch, LiteConfig(h=2))


@pytest.mark.parametrize(
    ("name", "lite", "message"),
    [
        ("fomaml", LiteConfig(h=2), r"lite\.h: 2 would have no effect, fomaml does not"),
        ("mrml", LiteConfig(query_batch=2), r"would have no effect, mrml does not"),
        ("maml", LiteConfig(checkpoint=True), r"lite\.checkpoint: .* set method\.checkpoint_steps = true"),
        (
            "maml",
            LiteConfig(h=2, control_variate=True),
            r"lite\.control_variate: true has no effect on inner",
        ),
        ("maml", LiteConfig(precision="bfloat16"), r'lite\.precision: .* "float32", got .bfloat16'),
    ],
)
def test_what_inner_steps_cannot_do_is_refused(name, lite, message):
    with pytest.raises(ValueError, match=message):
        METHODS[name](small_network(), MethodConfig(), lite=lite)


def test_networks_and_masks_whose_samples_depend_on_each_other_are_refused():
    lite = LiteConfig(h=2)
    with pytest.raises(ValueError, match=r"lite\.h, lite\.query_batch: .*BatchNorm has the statistics"):
        METHODS["maml"](small_network(norm=nn.BatchNorm2d), MethodConfig(), lite=lite)
    with pytest.raises(ValueError, match=r'lite\.h: 2 does not go with attention_masks = "maps"'):
        METHODS["p-meta"](small_network(), MethodConfig(attention_masks="maps"), lite=lite)
    regression = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)), SHAPE, SQUARED_ERROR)
    with pytest.raises(ValueError, match=r"lite\.stratified: true needs classes"):
        METHODS["maml"](regression, MethodConfig(), lite=LiteConfig(h=2, stratified=True))


def test_the_size_of_a_pass_without_gradient_alone_is_taken_by_every_method():
    assert all(
        method(small_network(), MethodConfig(), lite=LiteConfig(chunk=40)) for method in METHODS.values()
    )
