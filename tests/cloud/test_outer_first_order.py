"""FOMAML, FOMAML++, Reptile and Leap against their formulas, written out task by task; BOIL's frozen head."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from edge_adapt.cloud.inner.base import MethodConfig
from edge_adapt.cloud.inner.device import adapt
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.outer import METHODS, Batch
from torch import nn

from .plain import random_batch, small_network
from .written_out import gradient, loss_of, path

SIZE, STEPS = 0.25, 3


def prepared(name: str, **settings):
    network = small_network()
    settings = {"inner_steps": STEPS, "inner_step_size": SIZE, **settings}
    method = METHODS[name](network, MethodConfig(**settings))
    return network, method, method.init(3).to(torch.float64)


def tasks_of(network, batch):
    """(support loss, query loss) of every task."""
    return [
        (
            loss_of(network, batch.support_x[t], batch.support_y[t]),
            loss_of(network, batch.query_x[t], batch.query_y[t]),
        )
        for t in range(len(batch))
    ]


def mean_over_tasks(parts):
    return {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_fomaml_is_the_mean_query_gradient_at_the_adapted_weights(chunk):
    network, method, meta = prepared("fomaml", tasks_per_chunk=chunk)
    batch = random_batch()
    parts = []
    for support, query in tasks_of(network, batch):
        parts.append(gradient(query, path(support, meta.learned, [SIZE] * STEPS)[-1]))
    assert_equal(method.meta_gradient(meta, batch, 0.0).grads, mean_over_tasks(parts))


def test_fomaml_equals_first_order_maml():
    _, method, meta = prepared("fomaml")
    _, other, _ = prepared("maml", first_order=True)
    batch = random_batch()
    found, expected = (m.meta_gradient(meta, batch, 0.0) for m in (method, other))
    assert_equal(found.grads, expected.grads)
    assert found.metrics == pytest.approx(expected.metrics)
    torch.testing.assert_close(found.benefit, expected.benefit)


@pytest.mark.parametrize(
    ("progress", "weights"), [(0.0, [1 / 3, 1 / 3, 1 / 3]), (0.1, [1 / 6, 1 / 6, 2 / 3]), (0.2, [0, 0, 1])]
)
def test_fomaml_plus_plus_weighs_the_query_gradients_after_every_step(progress, weights):
    network, method, meta = prepared("fomaml++", multi_step_until=0.2)
    batch = random_batch()
    parts = []
    for support, query in tasks_of(network, batch):
        points = path(support, meta.learned, [SIZE] * STEPS)[1:]
        slopes = [gradient(query, point) for point in points]
        parts.append(
            {name: sum(v * g[name] for v, g in zip(weights, slopes, strict=True)) for name in meta.learned}
        )
    assert_equal(method.meta_gradient(meta, batch, progress).grads, mean_over_tasks(parts))


def test_fomaml_plus_plus_without_a_schedule_anneals_over_a_tenth_of_training():
    _, method, _ = prepared("fomaml++")
    assert method.config.multi_step_until == 0.1


def test_reptile_is_the_mean_way_from_adapted_to_initial_weights():
    network, method, meta = prepared("reptile")
    batch = random_batch()
    parts = []
    for support, _ in tasks_of(network, batch):
        last = path(support, meta.learned, [SIZE] * STEPS)[-1]
        parts.append({name: meta.learned[name] - last[name] for name in last})
    assert_equal(method.meta_gradient(meta, batch, 0.0).grads, mean_over_tasks(parts))


@pytest.mark.parametrize(("size", "rising"), [(1 / 64, False), (0.5, True)])
def test_leap_is_the_gradient_of_the_path_length_with_its_stabiliser(size, rising):
    """A large step size makes the loss rise at some steps, where the stabiliser changes a sign."""
    network, method, meta = prepared("leap", inner_step_size=size)
    batch = random_batch()
    parts, rises = [], 0
    for support, _ in tasks_of(network, batch):
        points = path(support, meta.learned, [size] * STEPS)
        total = {name: torch.zeros_like(value) for name, value in meta.learned.items()}
        for here, there in pairwise(points):
            rise = float(support(there) - support(here))
            rises += rise > 0
            slope = gradient(support, here)
            squared = sum(float((there[name] - here[name]).square().sum()) for name in here) + rise**2
            for name in total:
                total[name] -= (there[name] - here[name] - abs(rise) * slope[name]) / squared**0.5
        parts.append(total)
    assert (rises > 0) == rising
    assert_equal(method.meta_gradient(meta, batch, 0.0).grads, mean_over_tasks(parts))


def test_leap_lengthens_no_path_that_does_not_move():
    """Black images, one of each class: the gradient is exactly 0 at weights of zero, the path has no length."""
    module = nn.Sequential()
    module.add_module("flatten", nn.Flatten())
    module.add_module("fc", nn.Linear(4, 2))
    network = Network(module.double(), (1, 2, 2))
    method = METHODS["leap"](network, MethodConfig(inner_steps=2, inner_step_size=0.1))
    meta = method.init(0).to(torch.float64)
    zeros = torch.zeros(1, 2, 1, 2, 2, dtype=torch.float64)
    meta.learned["fc.weight"].zero_()
    meta.learned["fc.bias"].zero_()
    labels = torch.tensor([[0, 1]])
    grads = method.meta_gradient(meta, Batch(zeros, labels, zeros, labels), 0.0).grads
    assert not any(value.any() for value in grads.values())


def test_boil_adapts_everything_but_the_output_layer():
    network, method, meta = prepared("boil")
    batch = random_batch()
    weights = adapt(network, method.config, meta, batch.support_x, batch.support_y).weights
    kept = {name for name, value in weights.items() if value.dim() == meta.learned[name].dim()}
    assert kept == {"fc.weight", "fc.bias"}
