"""Convolution, linear and GroupNorm on many tasks: against torch per task; first and second derivatives."""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.inner import ops
from edge_adapt.cloud.inner.group_norm import dots, group_norm, pooled_normalised
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.inner.norm_pool import norm_pool
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from .plain import small_network

TASKS, SAMPLES = 2, 3
GEOMETRIES = {
    "padded": (ops.Geometry((1, 1), (1, 1), (1, 1), 1), 4),
    "strided, two groups": (ops.Geometry((2, 2), (1, 1), (1, 1), 2), 2),
    "dilated": (ops.Geometry((1, 1), (2, 2), (2, 2), 1), 4),
    "depthwise": (ops.Geometry((1, 1), (1, 1), (1, 1), 4), 1),
}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def per_task(x: torch.Tensor) -> list[torch.Tensor]:
    """Rows n*T + t as one tensor per task."""
    return [x[t::TASKS] for t in range(TASKS)]


def joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(parts, 1).flatten(0, 1)


@pytest.mark.parametrize("case", GEOMETRIES)
@pytest.mark.parametrize("how", ["shared", "grouped", "one by one"])
def test_convolution_is_torchs_per_task_and_differentiates_twice(case, how, monkeypatch):
    geometry, per_group = GEOMETRIES[case]
    shared = how == "shared"
    monkeypatch.setattr(ops, "NARROW", per_group + 1 if how == "one by one" else 0)
    lead = () if shared else (TASKS,)
    x, w, b = normal(SAMPLES * TASKS, 4, 5, 5), normal(*lead, 4, per_group, 3, 3), normal(*lead, 4)
    expected = joined([
        F.conv2d(part, w if shared else w[t], b if shared else b[t], *geometry)
        for t, part in enumerate(per_task(x))
    ])  # fmt: skip
    torch.testing.assert_close(ops.conv(x, w, b, geometry), expected, rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda *args: ops.conv(*args, geometry), (x, w, b))
    assert gradgradcheck(lambda *args: ops.conv(*args, geometry), (x, w, b))


def test_inner_backward_skips_what_is_not_wanted_and_the_outer_one_does_not():
    geometry, _ = GEOMETRIES["padded"]
    x, w = normal(SAMPLES * TASKS, 4, 5, 5), normal(TASKS, 4, 4, 3, 3)
    y = ops.conv(x, w, None, geometry, ops.Wanted(input=False))
    inner = torch.autograd.grad(y.square().sum(), [x, w], create_graph=True, allow_unused=True)
    assert inner[0] is None
    outer = torch.autograd.grad(inner[1].square().sum(), [x, w])
    plain = ops.conv(x, w, None, geometry)
    expected = torch.autograd.grad(plain.square().sum(), [x, w], create_graph=True)
    torch.testing.assert_close(inner[1], expected[1])
    for got, want in zip(outer, torch.autograd.grad(expected[1].square().sum(), [x, w]), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("middle", [(), (3,)])
def test_linear_is_torchs_per_task_and_differentiates_twice(middle):
    x, w, b = normal(SAMPLES * TASKS, *middle, 5), normal(TASKS, 4, 5), normal(TASKS, 4)
    expected = joined([F.linear(part, w[t], b[t]) for t, part in enumerate(per_task(x))])
    torch.testing.assert_close(ops.linear(x, w, b), expected, rtol=1e-12, atol=1e-12)
    assert gradgradcheck(ops.linear, (x, w, b))


@pytest.mark.parametrize("shared", [False, True])
def test_group_norm_is_torchs_per_task_and_differentiates_twice(shared):
    lead = () if shared else (TASKS,)
    x, w, b = normal(SAMPLES * TASKS, 4, 3, 3), normal(*lead, 4), normal(*lead, 4)
    expected = joined([
        F.group_norm(part, 2, w if shared else w[t], b if shared else b[t], 1e-2)
        for t, part in enumerate(per_task(x))
    ])  # fmt: skip
    torch.testing.assert_close(group_norm(x, w, b, 2, 1e-2).output, expected, rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda *args: group_norm(*args, 2, 1e-2).output, (x, w, b))
    assert gradgradcheck(lambda *args: group_norm(*args, 2, 1e-2).output, (x, w, b))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("window", [(2, 2), (3, 1)])
def test_norm_and_pool_in_one_are_torchs_and_differentiate_twice(shared, window):
    lead = () if shared else (TASKS,)
    x, w, b = normal(SAMPLES * TASKS, 4, 5, 4), normal(*lead, 4), normal(*lead, 4)

    def both(*args: torch.Tensor) -> torch.Tensor:
        return norm_pool(*args, 2, 1e-2, window).output

    expected = F.max_pool2d(group_norm(x, w, b, 2, 1e-2).output, window)
    torch.testing.assert_close(both(x, w, b), expected, rtol=1e-12, atol=1e-12)
    assert gradcheck(both, (x, w, b))
    assert gradgradcheck(both, (x, w, b))
    assert gradgradcheck(
        lambda x, w, b: both(x.transpose(2, 3), w, b), (x.mT.detach().requires_grad_(), w, b)
    )


def test_sums_over_pixels_in_one_pass():
    a, b = normal(2, 3, 7).detach(), normal(2, 3, 7, seed=1).detach()
    products, plain = dots(a, b)
    torch.testing.assert_close(products, (a * b).sum(-1, keepdim=True), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(plain, b.sum(-1, keepdim=True), rtol=1e-13, atol=1e-13)


def test_pooled_normalised_input_and_its_gradient():
    x, w = normal(SAMPLES * TASKS, 4, 3, 3), torch.ones(4, dtype=torch.float64)

    def pool(x: torch.Tensor) -> torch.Tensor:
        normed = group_norm(x, w, w, 2, 1e-2)
        return pooled_normalised(x, normed.mean, normed.r)

    torch.testing.assert_close(pool(x), F.group_norm(x, 2, eps=1e-2).mean((2, 3)), rtol=1e-12, atol=1e-12)
    assert gradcheck(pool, (x,))


def test_a_fused_network_has_the_same_outputs_and_no_map_between_norm_and_pool():
    network, x = small_network(), normal(SAMPLES, 2, 8, 8).detach()

    def outputs(of: Network) -> tuple[torch.Tensor, list[int]]:
        shapes = []

        def call(index: int, rows: torch.Tensor) -> torch.Tensor:
            weights = [of.weights()[name] for name in of.names(index)]
            result = of.kind(index).forward(rows, weights, ops.Wanted()).output
            shapes.append(result.shape[-1])
            return result

        return of.run({of.source: x}, call)[0], shapes

    (plain, before), (fused, after) = outputs(network), outputs(network.fused)
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
    assert (before, after) == ([8, 8, 4, 4, 3], [8, 4, 4, 2, 3])
    assert torch.equal(outputs(network)[0], plain), "the network itself must not change"
