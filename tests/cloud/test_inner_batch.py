"""BatchNorm on many tasks, and adaptation in micro-batches: against torch's own layers, one task and part at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from edge_adapt.cloud.inner.base import Meta, MethodConfig
from edge_adapt.cloud.inner.batch_norm import batch_norm, normalised_rows
from edge_adapt.cloud.inner.device import adapt, outputs_of, query_logits
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.outer import METHODS
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from .plain import PlainTask, grouped, plain_gradient, random_batch, small_network

NORMS: dict[str, Callable[[int], nn.Module]] = {"group": grouped, "batch": nn.BatchNorm2d}
TASKS, SAMPLES = 2, 3


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def prepared(norm: str, method: str = "p-meta", **settings) -> tuple[Network, MethodConfig, Meta]:
    """A method on the small network with the norm, step sizes all different."""
    network = small_network(norm=NORMS[norm])
    config = MethodConfig(inner_steps=2, inner_step_size=0.3, **settings)
    made = METHODS[method](network, config)
    meta = made.init(seed=5).to(torch.float64)
    spread = torch.linspace(0.5, 1.5, meta.alpha.numel()).double().reshape(meta.alpha.shape)
    where = meta.learned if "alpha" in meta.learned else meta.fixed
    where["alpha"] = meta.alpha * spread
    return network, made.config, meta


@pytest.mark.parametrize("pixels", [(3, 2), ()])
def test_batch_norm_is_torchs_per_task_and_differentiates_twice(pixels):
    x, w, b = normal(SAMPLES * TASKS, 4, *pixels), normal(TASKS, 4), normal(TASKS, 4, seed=1)
    parts = [F.batch_norm(x[t::TASKS], None, None, w[t], b[t], training=True, eps=1e-2) for t in range(TASKS)]
    expected = torch.stack(parts, 1).flatten(0, 1)
    torch.testing.assert_close(batch_norm(x, w, b, 1e-2), expected, rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda *args: batch_norm(*args, 1e-2), (x, w, b))
    assert gradgradcheck(lambda *args: batch_norm(*args, 1e-2), (x, w, b))


def test_normalised_rows_have_mean_0_and_variance_1_per_task_and_channel():
    x = (5 + 3 * normal(SAMPLES * TASKS, 4, 3, 3)).detach()
    for t in range(TASKS):
        own = normalised_rows(x, TASKS, 0.0)[t::TASKS].transpose(0, 1).flatten(1)
        torch.testing.assert_close(own.mean(1), torch.zeros(4).double(), rtol=0, atol=1e-14)
        torch.testing.assert_close(own.var(1, correction=0), torch.ones(4).double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("maml", {}),
        ("anil", {}),
        ("p-meta", {"rho_bw": 0.3}),
        ("p-meta", {"attention": False}),
        ("maml++", {"multi_step_until": 0.5}),
    ],
)
def test_the_outer_gradient_through_batch_norm_is_torchs_double_backward(method, settings, checkpointed):
    network, config, meta = prepared("batch", method, checkpoint_steps=checkpointed, **settings)
    batch = random_batch()
    expected = plain_gradient(network, config, meta, batch)
    found = METHODS[method](network, config).meta_gradient(meta, batch, 1.0).grads
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


def part_by_part(
    task: PlainTask, weights: dict[str, Tensor], alpha: Tensor, x: Tensor, y: Tensor, size: int
) -> dict[str, Tensor]:
    """One step: w minus the mean over parts, by their samples, of alpha * gamma * g of the part."""
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    for start in range(0, len(y), size):
        own_x, own_y = x[start : start + size], y[start : start + size]
        leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
        moved = task.step(leaves, alpha, own_x, own_y)
        for name in total:
            total[name] += (moved[name] - leaves[name]).detach() * len(own_y) / len(y)
    return {name: value + total[name] for name, value in weights.items()}


@pytest.mark.parametrize("size", [1, 2, 4, 6])
@pytest.mark.parametrize(
    ("norm", "attention"), [("group", True), ("group", False), ("batch", True), ("batch", False)]
)
def test_accumulated_parts_have_their_own_statistics_and_scores(norm, size, attention):
    if (norm, size, attention) == ("batch", 1, True):
        pytest.skip("what attention sees of a sample alone is 0 before batch norm, but for rounding")
    network, config, meta = prepared(norm, attention=attention)
    batch = random_batch()
    adapted = adapt(network, config, meta, batch.support_x, batch.support_y, batch=size)
    task = PlainTask(network, config, meta.learned)
    for t in range(len(batch)):
        weights = {name: meta.learned[name] for name in network.parameters}
        for alpha in meta.alpha:
            weights = part_by_part(task, weights, alpha, batch.support_x[t], batch.support_y[t], size)
        for name, value in weights.items():
            torch.testing.assert_close(adapted.weights[name][t], value, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("norm", NORMS)
def test_the_whole_support_set_at_once_is_what_training_does(norm):
    network, config, meta = prepared(norm)
    batch = random_batch()
    adapted = adapt(network, config, meta, batch.support_x, batch.support_y, batch=6)
    logits = query_logits(network, adapted, batch.query_x).flatten(0, 1)
    loss = float(F.cross_entropy(logits, batch.query_y.flatten()))
    trained = METHODS["p-meta"](network, config).meta_gradient(meta, batch, 0.0)
    assert trained.metrics["query_loss"] == pytest.approx(loss, rel=1e-12)


def test_without_batch_norm_and_with_scores_per_sample_parts_do_not_matter():
    network, config, meta = prepared("group")
    batch = random_batch()
    together, alone = (
        adapt(network, config, meta, batch.support_x, batch.support_y, batch=size) for size in (None, 1)
    )
    for name, value in together.weights.items():
        torch.testing.assert_close(alone.weights[name], value, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(alone.losses, together.losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(alone.benefit, together.benefit, rtol=1e-10, atol=1e-14)
    for own, other in zip(alone.kept, together.kept, strict=True):
        assert own.keys() == other.keys()
        assert all(torch.equal(own[key], other[key]) for key in own)


def test_recorded_selections_of_parts_replay_the_same_adaptation():
    network, config, meta = prepared("group", rho_bw=0.3)
    batch = random_batch()
    first = adapt(network, config, meta, batch.support_x, batch.support_y, batch=4)
    again = adapt(network, config, meta, batch.support_x, batch.support_y, first.kept, batch=4)
    assert all(torch.equal(again.weights[name], value) for name, value in first.weights.items())


@pytest.mark.parametrize("method", ["maml", "anil"])
def test_statistics_are_a_tasks_own_whether_its_norms_adapt_or_not(method):
    network, config, meta = prepared("batch", method, attention=False)
    batch = random_batch()
    together = adapt(network, config, meta, batch.support_x, batch.support_y)
    logits = query_logits(network, together, batch.query_x)
    for t in range(len(batch)):
        one = batch.chunk(t, t + 1)
        alone = adapt(network, config, meta, one.support_x, one.support_y)
        torch.testing.assert_close(together.losses[t : t + 1], alone.losses, rtol=1e-12, atol=0)
        own = query_logits(network, alone, one.query_x)
        torch.testing.assert_close(logits[t : t + 1], own, rtol=1e-10, atol=1e-12)
        weights = {name: alone.weights[name] for name in network.parameters}
        plain = {name: w[0] if w.dim() > meta.learned[name].dim() else w for name, w in weights.items()}
        expected = torch.func.functional_call(network.module, plain, (one.query_x[0],))
        torch.testing.assert_close(own[0], expected, rtol=1e-10, atol=1e-12)


def test_outputs_before_adaptation_are_torchs_per_task():
    network, _, meta = prepared("batch", "maml")
    batch = random_batch()
    found = outputs_of(network, network.per_task(meta.learned, (), len(batch)), batch.query_x)
    for t, x in enumerate(batch.query_x):
        expected = torch.func.functional_call(network.module, dict(meta.learned), (x,))
        torch.testing.assert_close(found[t], expected, rtol=1e-10, atol=1e-12)


def test_a_batch_norm_without_scale_and_shift_is_refused():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"layer 1: a norm needs scale and shift, got affine = False"):
        Network(module, (1, 4, 4))
