"""LayerNorm over any number of trailing axes and its input gradient, against torch autograd."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, relative_error, run

torch = pytest.importorskip("torch")
PRECISIONS = [(np.float64, 1e-10), (np.float32, 1e-5)]
LEAST = 1e-5  # eps
Shape = tuple[int, ...]
few = settings(max_examples=40, deadline=None, derandomize=True)
SHAPES = st.tuples(
    st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    st.lists(st.integers(1, 5), min_size=1, max_size=2).map(lambda axes: (*axes, 2)),
)


def arrays(lead: Shape, trailing: Shape, dtype: type = np.float64) -> tuple[Array, Array, Array]:
    """Return random x (not centred), scale, bias."""
    rng = np.random.default_rng(0)
    x = 3 * rng.normal(size=(*lead, *trailing)) + 2
    return x.astype(dtype), rng.normal(size=trailing).astype(dtype), rng.normal(size=trailing).astype(dtype)


def check(lead: Shape, trailing: Shape, dtype: type, tolerance: float) -> None:
    x, scale, bias = arrays(lead, trailing, dtype)
    outputs = [garbage(x.shape, dtype), garbage(x.shape, dtype), garbage(lead, dtype)]
    y = run("LayerNorm", [x, scale, bias], outputs, dims=len(trailing), eps=LEAST)
    _, x_hat, inv_std = outputs
    tx, ts, tb = (torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, scale, bias))
    expected = torch.nn.functional.layer_norm(tx, trailing, ts, tb, LEAST)
    assert relative_error(y, expected.detach().numpy()) < tolerance
    rows = x.astype(np.float64).reshape(*lead, -1)
    assert relative_error(inv_std, 1 / np.sqrt(rows.var(-1) + LEAST)) < tolerance
    gy = np.random.default_rng(1).normal(size=x.shape).astype(dtype)
    expected.backward(torch.tensor(gy.astype(np.float64)))
    gradient = [gy, x_hat, inv_std, scale]
    gx = run("LayerNormInputGrad", gradient, [garbage(x.shape, dtype)], dims=len(trailing))
    # two elements a row make x_hat = +-1 and the gradient a small difference of large terms
    terms = float(np.abs(inv_std).max() * np.abs(gy).max() * np.abs(scale).max())
    assert np.abs(gx - tx.grad.numpy()).max() < tolerance * terms
    ones = np.ones(len(x), dtype)
    gs = run("ScaleGrad", [gy, x_hat, ones], [np.zeros_like(scale)], axis=-1)
    assert relative_error(gs, ts.grad) < tolerance
    gb = run("BiasGrad", [gy, ones], [np.zeros_like(bias)], axis=-1)
    assert relative_error(gb, tb.grad) < tolerance


@few
@given(SHAPES)
def test_layer_norm_and_its_gradients_match_torch(shapes: tuple[Shape, Shape]) -> None:
    check(*shapes, np.float64, 1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("trailing", [(5000,), (37, 29), (3,)], ids=str)
def test_rows_longer_and_shorter_than_the_buffer(trailing: Shape, dtype: type, tolerance: float) -> None:
    check((2, 7), trailing, dtype, tolerance)


def test_the_input_gradient_is_the_slope_of_the_output() -> None:
    x, scale, bias = arrays((2, 3), (4, 2))
    rng = np.random.default_rng(4)
    gy, direction = rng.normal(size=x.shape), rng.normal(size=x.shape)

    def forward(at: Array) -> list[Array]:
        outputs = [garbage(x.shape), garbage(x.shape), garbage((2, 3))]
        run("LayerNorm", [at, scale, bias], outputs, dims=2, eps=LEAST)
        return outputs

    slope = np.vdot(gy, forward(x + 1e-5 * direction)[0] - forward(x - 1e-5 * direction)[0]) / 2e-5
    _, x_hat, inv_std = forward(x)
    gx = run("LayerNormInputGrad", [gy, x_hat, inv_std, scale], [garbage(x.shape)], dims=2)
    assert np.vdot(gx, direction) == pytest.approx(slope, rel=1e-7)


def test_outputs_may_be_dropped() -> None:
    x, scale, bias = arrays((3, 4), (6,))
    whole = [garbage(x.shape), garbage(x.shape), garbage((3, 4))]
    run("LayerNorm", [x, scale, bias], whole, dims=1, eps=LEAST)
    for position in (0, 1):
        part = [output.copy() if at == position else None for at, output in enumerate(whole)]
        run("LayerNorm", [x, scale, bias], part, dims=1, eps=LEAST)
        np.testing.assert_array_equal(part[position], whole[position])


def test_a_constant_row_is_normalised_to_zero() -> None:
    x = np.full((1, 3, 4), 7.0)
    y = run("LayerNorm", [x, np.ones(4), np.arange(4.0)], [garbage(x.shape), None, None], dims=1, eps=LEAST)
    np.testing.assert_array_equal(y[0], np.tile(np.arange(4.0), (3, 1)))


def test_a_norm_nobody_reads_and_one_of_the_batch_are_refused() -> None:
    x = np.ones((1, 4))
    with pytest.raises(ValueError, match="neither y nor x_hat"):
        run("LayerNorm", [x, np.ones(4), np.ones(4)], [None, None, garbage((1,))], dims=1, eps=LEAST)
    with pytest.raises(ValueError, match="'dims' must be 1 to 1"):
        run("LayerNorm", [x, x, x], [garbage(x.shape), None, None], dims=2, eps=LEAST)
