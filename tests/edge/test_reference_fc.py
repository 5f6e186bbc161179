"""The fully connected layer and its gradients against torch autograd."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import garbage, relative_error, run, selected

torch = pytest.importorskip("torch")
PRECISIONS = [(np.float64, 1e-10), (np.float32, 1e-5)]
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 7))
TILED = (2, 700, 13)  # several tiles of output rows


def check(sizes: tuple[int, int, int], dtype: type, tolerance: float) -> None:
    batch, width, outputs = sizes
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s).astype(dtype) for s in ((batch, width), (outputs, width), (outputs,)))
    tx, tw, tb = (torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, w, b))
    expected = torch.nn.functional.linear(tx, tw, tb)
    y = run("Fc", [x, w, b], [garbage((batch, outputs), dtype)])
    assert relative_error(y, expected.detach().numpy()) < tolerance
    gy, weights = rng.normal(size=y.shape).astype(dtype), rng.uniform(size=batch).astype(dtype)
    (
        expected * torch.tensor(gy.astype(np.float64)) * torch.tensor(weights.astype(np.float64))[:, None]
    ).sum().backward()
    gx = run("FcInputGrad", [gy, w], [garbage(x.shape, dtype)])
    assert relative_error(gx * weights[:, None], tx.grad.numpy()) < tolerance
    assert (
        relative_error(run("FcWeightGrad", [x, gy, weights], [np.zeros_like(w)]), tw.grad.numpy()) < tolerance
    )
    assert (
        relative_error(run("BiasGrad", [gy, weights], [np.zeros_like(b)], axis=-1), tb.grad.numpy())
        < tolerance
    )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(SIZES)
def test_fc_and_its_gradients_match_torch(sizes: tuple[int, int, int]) -> None:
    check(sizes, np.float64, 1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_weight_gradient_in_tiles(dtype: type, tolerance: float) -> None:
    check(TILED, dtype, tolerance)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(SIZES, st.booleans())
def test_gradients_are_weighed_per_sample_and_sparse_equals_dense(
    sizes: tuple[int, int, int], keep: bool
) -> None:
    batch, width, outputs = sizes
    rng = np.random.default_rng(1)
    x, gy, weights = (
        rng.normal(size=(batch, width)),
        rng.normal(size=(batch, outputs)),
        rng.uniform(size=batch),
    )
    fw, bw = (
        rng.normal(size=x.shape) * (rng.uniform(size=x.shape) < 0.5),
        rng.normal(size=gy.shape) if keep else None,
    )
    start = rng.normal(size=(outputs, width))
    factor = weights[:, None] * (1 if bw is None else bw)
    expected = start + np.einsum("no,ni->oi", factor * gy, fw * x)
    gw = run("FcWeightGrad", [x, gy, weights, fw, bw], [start.copy()])
    assert relative_error(gw, expected) < 1e-10
    kept = [*selected(x, fw, width), gy, weights, bw]
    assert relative_error(run("FcWeightGradSparse", kept, [start.copy()]), expected) < 1e-10
    gb = run("BiasGrad", [gy, weights, bw], [start[:, 0].copy()], axis=-1)
    assert relative_error(gb, start[:, 0] + (factor * gy).sum(0)) < 1e-10


def test_fc_without_bias() -> None:
    x, w = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(run("Fc", [x, w, None], [garbage((2, 4))]), x @ w.T)
