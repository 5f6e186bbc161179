"""Softmax over the last axis and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import garbage, run

torch = pytest.importorskip("torch")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 7), min_size=2, max_size=4), st.integers(0, 1000))
def test_softmax_is_torchs(shape: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, gy = 3 * rng.normal(size=shape), rng.normal(size=shape)
    tensor = torch.tensor(x, requires_grad=True)
    expected = tensor.softmax(-1)
    (gradient,) = torch.autograd.grad(expected, tensor, torch.tensor(gy))
    y = run("Softmax", [x], [garbage(x.shape)])
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-13)
    gx = run("SoftmaxGrad", [gy, y], [garbage(x.shape)])
    np.testing.assert_allclose(gx, gradient.numpy(), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_more_rows_than_one_block_and_large_values(dtype: type) -> None:
    x = (1e4 * np.random.default_rng(0).normal(size=(2, 300, 3))).astype(dtype)
    y = run("Softmax", [x], [garbage(x.shape, dtype)])
    expected = torch.tensor(x.astype(np.float64)).softmax(-1).numpy()
    np.testing.assert_allclose(y, expected, rtol=2e-2 if dtype == np.float32 else 1e-10, atol=1e-30)
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-6)


def test_the_gradient_is_finite_differences() -> None:
    rng = np.random.default_rng(1)
    x, gy, direction = (rng.normal(size=(2, 4, 5)) for _ in range(3))
    y = run("Softmax", [x], [garbage(x.shape)])
    gx = run("SoftmaxGrad", [gy, y], [garbage(x.shape)])
    ahead, behind = (run("Softmax", [x + s * direction], [garbage(x.shape)]) for s in (1e-5, -1e-5))
    assert np.vdot(gy, ahead - behind) / 2e-5 == pytest.approx(np.vdot(gx, direction), rel=1e-8)
