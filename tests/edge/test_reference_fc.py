"""The fully connected layer and its gradients against torch autograd."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from edge_adapt.edge.reference import KERNELS
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import garbage, relative_error, run, selected, workspace_for

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


@settings(max_examples=30, deadline=None, derandomize=True)
@given(SIZES, st.lists(st.integers(1, 4), min_size=1, max_size=2), st.booleans())
def test_places_share_the_weight(sizes: tuple[int, int, int], places: list[int], attended: bool) -> None:
    batch, width, outputs = sizes
    rng = np.random.default_rng(2)
    x, gy = rng.normal(size=(batch, *places, width)), rng.normal(size=(batch, *places, outputs))
    w, b, weights = rng.normal(size=(outputs, width)), rng.normal(size=outputs), rng.uniform(size=batch)
    fw, bw = (rng.normal(size=(batch, n)) if attended else None for n in (width, outputs))
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    expected = torch.nn.functional.linear(tx, tw, torch.tensor(b))
    assert relative_error(run("Fc", [x, w, b], [garbage(gy.shape)]), expected.detach().numpy()) < 1e-10
    expected.backward(torch.tensor(gy))
    assert relative_error(run("FcInputGrad", [gy, w], [garbage(x.shape)]), tx.grad.numpy()) < 1e-10
    start = rng.normal(size=w.shape)
    grads = np.einsum("npo,npi->noi", gy.reshape(batch, -1, outputs), x.reshape(batch, -1, width))
    np.testing.assert_allclose(grads.sum(0), tw.grad.numpy(), atol=1e-10)
    if fw is not None and bw is not None:
        grads = grads * bw[:, :, None] * fw[:, None, :]
    gw = run("FcWeightGrad", [x, gy, weights, fw, bw], [start.copy()])
    assert relative_error(gw, start + np.tensordot(weights, grads, 1)) < 1e-10


def test_many_places_hide_no_temporary() -> None:
    rng = np.random.default_rng(3)
    x, gy, w = (rng.normal(size=s).astype(np.float32) for s in ((2, 60, 300), (2, 60, 200), (200, 300)))
    b, ones = w[:, 0].copy(), np.ones(2, np.float32)
    calls = [("Fc", [x, w, b], np.empty_like(gy)), ("FcInputGrad", [gy, w], np.empty_like(x))]
    calls.append(("FcWeightGrad", [x, gy, ones, x[:, 0].copy(), gy[:, 0].copy()], np.zeros_like(w)))
    for kind, inputs, output in calls:
        workspace = workspace_for(kind, inputs, [output], {})
        for _ in range(2):  # the first call may fill caches of the interpreter
            tracemalloc.start()
            KERNELS[kind].run(inputs, [output], {}, workspace)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 8192 < x[0].nbytes / 8, kind
