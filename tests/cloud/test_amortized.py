"""Amortized learners: what they learn, query batches, chunks, norms, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from edge_adapt.cloud.amortized import LEARNERS
from edge_adapt.cloud.amortized.film import put_films
from edge_adapt.cloud.inner.base import Meta, MethodConfig
from edge_adapt.cloud.lite import LiteConfig
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.tasks.task import Stored, Task
from torch import nn

from .tiny import LABELS, learner_of, task, tiny

FILM = ("cnaps", "simple-cnaps")
TEN = torch.arange(10) % 3


def assert_same(found, expected, atol=1e-12):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol)


def test_what_each_learner_learns_and_keeps():
    parts = {}
    for name in LEARNERS:
        learner, meta = learner_of(name)
        assert {*meta.learned, *meta.fixed} == set(learner.modules.tensors())
        parts[name] = tuple(
            {key.partition(".")[0]: None for key in group} for group in (meta.learned, meta.fixed)
        )
        groups = learner.param_groups(meta, 2e-3)
        assert [key for group in groups for key in group["names"]] == list(meta.learned)
    assert parts == {
        "protonets": ({"extractor": None}, {}),
        "cnaps": ({"set_encoder": None, "film_generator": None, "head_generator": None}, {"extractor": None}),
        "simple-cnaps": ({"set_encoder": None, "film_generator": None}, {"extractor": None}),
    }


@pytest.mark.parametrize("name", LEARNERS)
def test_the_same_seed_gives_the_same_start_and_another_one_other_generators(name):
    learner, _ = learner_of(name)
    state = torch.get_rng_state()
    first, again, other = (learner.init(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(again.learned, first.learned, atol=0)
    if name in FILM:
        key = "film_generator.first.weight"
        assert not torch.equal(first.learned[key], other.learned[key])


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("query_batch", [1, 3])
def test_query_batches_change_neither_gradient_nor_metrics(name, query_batch):
    penalty = {"film_penalty": 10.0} if name in FILM else {}  # added once per task, not once per batch
    learner, meta = learner_of(name, **penalty)
    expected = learner.meta_gradient(meta, [task()], 0.0)
    learner, _ = learner_of(name, LiteConfig(query_batch=query_batch), **penalty)
    found = learner.meta_gradient(meta, [task()], 0.0)
    assert_same(found.grads, expected.grads)
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-12)
    assert expected.metrics["query_loss"] > 0


def test_the_film_penalty_is_the_squared_distance_from_films_that_change_nothing():
    name, drawn = "simple-cnaps", task()
    found = []
    for penalty in (0.0, 0.7):
        learner, meta = learner_of(name, film_penalty=penalty)
        found.append(learner.task_gradient(meta, drawn).grads)
    modules = learner.modules.carrying({**meta.learned, **meta.fixed})
    modules.set_encoder.double()
    modules.film_generator.double()
    film = modules.film_generator(modules.set_encoder(drawn.support.x.double()).mean(0, keepdim=True))[0]
    neutral = torch.tensor([1.0] * 4 + [0.0] * 4 + [1.0] * 6 + [0.0] * 6)
    penalty = 0.7 * (film - neutral).square().sum()
    weight = modules.film_generator.first.weight
    expected = torch.autograd.grad(penalty, weight)[0]
    key = "film_generator.first.weight"
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found[1][key] - found[0][key], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_gradient_is_the_mean_over_tasks(name):
    learner, meta = learner_of(name)
    tasks = [task(), task(TEN)]
    both = learner.meta_gradient(meta, tasks, 0.0)
    own = [learner.meta_gradient(meta, [one], 0.0) for one in tasks]
    assert_same(both.grads, {key: (own[0].grads[key] + own[1].grads[key]) / 2 for key in meta.learned})
    assert both.metrics["query_loss"] == pytest.approx(sum(one.metrics["query_loss"] for one in own) / 2)


@pytest.mark.parametrize("name", LEARNERS)
def test_outer_gradients_are_clamped_where_asked(name):
    learner, meta = learner_of(name, gradient_clamp=1e-4)
    grads = learner.meta_gradient(meta, [task()], 0.0).grads
    assert max(float(grad.abs().max()) for grad in grads.values()) == pytest.approx(1e-4)


class Watched(Stored):
    """Samples that note which rows are taken together."""

    taken: list[list[int]] = []  # noqa: RUF012

    def take(self, rows):
        self.taken.append(rows.tolist())
        return super().take(rows)


@pytest.mark.parametrize("name", FILM)
def test_support_is_taken_in_chunks_and_every_batch_and_level_has_an_h_of_its_own(name):
    labels = torch.arange(50) % 5
    learner, meta = learner_of(name, LiteConfig(h=4, query_batch=2, chunk=16), module=tiny(outputs=5))
    Watched.taken.clear()
    learner.task_gradient(meta, task(labels, queries=6, samples=Watched))
    chunks, drawn = Watched.taken[:8], Watched.taken[8:]
    assert [len(rows) for rows in chunks] == 2 * [16, 16, 16, 2]  # each level once
    assert [row for rows in chunks for row in rows] == 2 * list(range(50))
    assert [len(rows) for rows in drawn] == 6 * [4]
    assert len({tuple(rows) for rows in drawn}) == 6
    first = list(drawn)
    Watched.taken.clear()
    learner.task_gradient(meta, task(labels, queries=6, samples=Watched))
    assert Watched.taken[8:] == first
    Watched.taken.clear()
    learner.task_gradient(meta, task(labels, queries=6, samples=Watched, key=(0, 1)))
    assert all(rows not in first for rows in Watched.taken[8:])


@pytest.mark.parametrize("name", FILM)
def test_features_that_nothing_learned_changes_are_computed_once_for_all_query_batches(name):
    learner, meta = learner_of(name, LiteConfig(query_batch=1, chunk=4), film=False)
    Watched.taken.clear()
    learner.task_gradient(meta, task(samples=Watched))
    assert Watched.taken == [[0, 1, 2, 3], [4, 5]]


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("lite", [LiteConfig(chunk=4), LiteConfig(chunk=1, query_batch=3)], ids=["4", "1"])
def test_logits_do_not_depend_on_chunks_and_leave_no_graph(name, lite):
    learner, meta = learner_of(name)
    expected = learner.logits(meta, task(TEN))
    found = learner_of(name, lite)[0].logits(meta, task(TEN))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert found.shape == (4, 3)
    assert not found.requires_grad


@pytest.mark.parametrize("name", LEARNERS)
def test_the_order_of_the_support_set_does_not_matter(name):
    learner, meta = learner_of(name)
    drawn, order = task(TEN), torch.randperm(10, generator=torch.Generator().manual_seed(0))
    other = Task(Stored(drawn.support.x[order]), TEN[order], drawn.query, drawn.query_y, 3, drawn.key)
    torch.testing.assert_close(learner.logits(meta, other), learner.logits(meta, drawn), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LEARNERS)
def test_checkpointing_changes_no_gradient(name):
    learner, meta = learner_of(name, LiteConfig(h=5))
    expected = learner.task_gradient(meta, task()).grads
    learner, _ = learner_of(name, LiteConfig(h=5, checkpoint=True))
    assert_same(learner.task_gradient(meta, task()).grads, expected)


@pytest.mark.parametrize("name", LEARNERS)
def test_bfloat16_keeps_weights_and_gradients_in_float32_and_the_loss_close(name):
    learner, meta = learner_of(name, LiteConfig(h=5))
    meta = meta.to(torch.float32)
    expected = learner.task_gradient(meta, task())
    learner, _ = learner_of(name, LiteConfig(h=5, precision="bfloat16"))
    found = learner.task_gradient(meta, task())
    assert all(grad.dtype is torch.float32 for grad in found.grads.values())
    assert found.metrics["query_loss"] == pytest.approx(expected.metrics["query_loss"], rel=0.05)
    a, b = (torch.cat([grad.flatten() for grad in one.grads.values()]) for one in (found, expected))
    assert not torch.equal(a, b)
    assert torch.cosine_similarity(a, b, dim=0) > 0.98


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_trained_in_bfloat16_is_measured_as_the_device_computes(name):
    learner, meta = learner_of(name)
    meta = meta.to(torch.float32)
    half, _ = learner_of(name, LiteConfig(precision="bfloat16"))
    assert torch.equal(half.logits(meta, task()), learner.logits(meta, task()))
    assert not torch.equal(half.exact(meta, task()).features, learner.exact(meta, task()).features)


def test_without_films_simple_cnaps_has_nothing_to_learn_and_cnaps_its_head():
    learner, meta = learner_of("simple-cnaps", LiteConfig(h=2), film=False)
    assert meta.learned == {}
    found = learner.meta_gradient(meta, [task()], 0.0)
    assert found.grads == {}
    assert found.metrics["query_loss"] > 0
    learner, meta = learner_of("cnaps", film=False)
    assert {key.partition(".")[0] for key in meta.learned} == {"head_generator"}
    expected = learner.task_gradient(meta, task()).grads
    learner, _ = learner_of("cnaps", LiteConfig(h=2), film=False)
    assert_same(learner.task_gradient(meta, task()).grads, expected)  # no level depends on what is learned


def test_with_the_identity_for_covariance_the_distances_are_those_of_protonets():
    learner, meta = learner_of("simple-cnaps", film=False, covariance="identity")
    nearest, start = learner_of("protonets")
    torch.testing.assert_close(
        learner.logits(meta, task()), nearest.logits(start, task()), rtol=0, atol=1e-12
    )


def batch_norms(module, x):
    """The module with the statistics of x in its BatchNorms, as a training would leave them."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        module.train()(x)
    return module


@pytest.mark.parametrize("name", LEARNERS)
def test_statistics_of_a_batch_norm_stay_what_they_are_whatever_the_module_was_set_to(name):
    module = batch_norms(tiny(nn.BatchNorm2d), task(TEN).support.x + 1)
    assert module.training
    learner, meta = learner_of(name, LiteConfig(h=3, chunk=2), module=module)
    key = "extractor.block1.norm.running_mean"
    assert torch.equal(meta.fixed[key].float(), module.block1.norm.running_mean)
    assert key not in meta.learned
    whole = learner_of(name, LiteConfig(), module=module)[0].logits(meta, task(TEN))
    torch.testing.assert_close(learner.logits(meta, task(TEN)), whole, rtol=0, atol=1e-12)
    before = copy.deepcopy(meta.fixed)
    learner.meta_gradient(meta, [task()], 0.0)
    assert_same(meta.fixed, before, atol=0)


def test_which_extractors_must_have_been_trained_before():
    assert learner_of("protonets")[0].needs_weights == ""
    assert (
        "block1.norm is a BatchNorm" in learner_of("protonets", module=tiny(nn.BatchNorm2d))[0].needs_weights
    )
    for name in FILM:
        assert f"{name} keeps its extractor as it is" in learner_of(name)[0].needs_weights


@pytest.mark.parametrize("name", LEARNERS)
def test_an_extractor_with_live_batch_statistics_is_refused_with_the_reason(name):
    module = tiny(lambda channels: nn.BatchNorm2d(channels, track_running_stats=False))
    with pytest.raises(
        ValueError, match=r"^block1\.norm normalises by the statistics of the batch .* biased"
    ):
        learner_of(name, module=module)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("protonets", {"film": False}, "film: false would have no effect, protonets does not use it"),
        ("cnaps", {"covariance": "identity"}, "covariance: .identity. would have no effect, cnaps"),
        ("simple-cnaps", {"inner_steps": 3}, "inner_steps: 3 would have no effect, simple-cnaps"),
    ],
)
def test_a_setting_without_effect_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        learner_of(name, **settings)


@pytest.mark.parametrize("name", LEARNERS)
def test_h_above_the_support_set_and_a_class_without_sample_are_refused(name):
    learner, meta = learner_of(name, LiteConfig(h=12))
    with pytest.raises(
        ValueError,
        match=r"^lite\.h: 12 asked for, but a task's support set has 10 samples; set at most that, or none$",
    ):
        learner.meta_gradient(meta, [task(TEN)], 0.0)
    with pytest.raises(ValueError, match="labels 0 to 3, each at least once, got 2, 3, 0, 1 samples"):
        task(torch.where(LABELS == 2, 3, LABELS))


def test_modules_carry_weights_and_refuse_those_of_another_learner():
    learner, meta = learner_of("cnaps")
    weights = {**meta.learned, **meta.fixed}
    carried = learner.modules.carrying(weights)
    assert all(torch.equal(value.double(), weights[name]) for name, value in carried.tensors().items())
    assert not any(part.training for part in (carried.extractor, carried.head_generator))
    drawn = task()
    exact = learner.exact(meta.to(torch.float32), drawn)
    film = carried.film_generator(carried.set_encoder(drawn.support.x).mean(0, keepdim=True))[0]
    start = 0
    for name in carried.films:
        own = carried.extractor.get_submodule(name)
        size = len(own.scale)
        own.scale.data.copy_(film[start : start + size])
        own.shift.data.copy_(film[start + size : start + 2 * size])
        start += 2 * size
    torch.testing.assert_close(carried.extractor(drawn.support.x), exact.features, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"^head_generator\.first\.bias: expected nothing, got \(6,\)$"):
        learner_of("simple-cnaps")[0].modules.carrying(weights)


BACKBONES = {
    "resnet18": ({"width": 0.125}, 8),
    "resnet12": ({"channels": (8, 8, 16, 16)}, 4),
    "conv4": ({}, 4),
    "efficientnet-b0": ({"width": 0.25}, 16),
}


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("name", BACKBONES)
def test_films_follow_every_block_change_nothing_at_first_and_keep_the_names(name, norm):
    options, blocks = BACKBONES[name]
    module = build_backbone(name, (3, 32, 32), 5, 0, {**options, "norm": norm})
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    module = batch_norms(module, x).eval()
    before, names = module(x), [key for key, _ in module.named_parameters()]
    films = put_films(module, (3, 32, 32))
    assert len(films) == blocks
    assert torch.equal(module(x), before)
    added = {f"{film}.{part}" for film in films for part in ("scale", "shift")}
    assert [key for key, _ in module.named_parameters() if key not in added] == names
    for film in films:
        shift = module.get_submodule(film).shift
        shift.data[0] = 3.0
        assert not torch.equal(module(x), before), f"{film} has no effect"
        shift.data[0] = 0.0


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_learner_works_on_every_backbone(name, backbone):
    shape = (3, 32, 32)
    module = build_backbone(backbone, shape, 3, 0, BACKBONES[backbone][0])
    learner = LEARNERS[name](module, shape, MethodConfig(), LiteConfig(h=3, chunk=4))
    meta = learner.init(0)
    found = learner.meta_gradient(meta, [task(shape=shape)], 0.0)
    assert sum(float(grad.abs().max()) > 0 for grad in found.grads.values()) == len(meta.learned)
    assert isinstance(meta, Meta)


def test_a_backbone_without_blocks_gets_no_films():
    module = build_backbone("ds-cnn", (1, 49, 10), 4, 0)
    with pytest.raises(ValueError, match=r"DSCNN has none .*: use resnet18, .* or set method\.film = false"):
        LEARNERS["cnaps"](module, (1, 49, 10), MethodConfig(), LiteConfig())
    LEARNERS["cnaps"](module, (1, 49, 10), MethodConfig(film=False), LiteConfig())


class Reversed(nn.Module):
    """Calls its blocks in its own way, not the Sequential."""

    def __init__(self):
        super().__init__()
        self.inside = tiny()

    def forward(self, x):
        for name in ("block1", "block2", "average", "fc"):
            x = getattr(self.inside, name)(x)
        return x


def test_a_backbone_that_goes_round_its_sequential_gets_no_films():
    with pytest.raises(ValueError, match="Reversed: it does not call the blocks of its"):
        learner_of("cnaps", module=Reversed())


def test_a_backbone_must_end_in_its_classifier():
    with pytest.raises(ValueError, match="Sequential must end in a linear layer, its classifier"):
        learner_of("protonets", module=nn.Sequential(tiny(), nn.ReLU()))
