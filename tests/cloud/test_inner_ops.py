"""Convolution, linear and GroupNorm on many tasks: against torch per task; first and second derivatives."""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.inner import ops
from edge_adapt.cloud.inner.group_norm import group_norm, pooled_normalised
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

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
@pytest.mark.parametrize("shared", [False, True])
def test_convolution_is_torchs_per_task_and_differentiates_twice(case, shared):
    geometry, per_group = GEOMETRIES[case]
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


def test_pooled_normalised_input_and_its_gradient():
    x, w = normal(SAMPLES * TASKS, 4, 3, 3), torch.ones(4, dtype=torch.float64)

    def pool(x: torch.Tensor) -> torch.Tensor:
        normed = group_norm(x, w, w, 2, 1e-2)
        return pooled_normalised(x, normed.mean, normed.r)

    torch.testing.assert_close(pool(x), F.group_norm(x, 2, eps=1e-2).mean((2, 3)), rtol=1e-12, atol=1e-12)
    assert gradcheck(pool, (x,))
