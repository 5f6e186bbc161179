"""Scale and shift, its gradients and the parameter that every sample starts with, against torch autograd."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, relative_error, run

torch = pytest.importorskip("torch")
few = settings(max_examples=40, deadline=None, derandomize=True)
AXES = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)


def parameter_shape(x: tuple[int, ...], axis: int, trailing: int) -> tuple[int, ...]:
    """Shape of scale and bias: the channels, or `trailing` of the last axes (never the batch)."""
    return x[1:2] if axis == 1 else x[max(1, len(x) - trailing) :]


def spread(parameter: Array, x: tuple[int, ...], axis: int) -> Array:
    """The parameter, given trailing axes to broadcast over x."""
    return parameter.reshape(-1, *[1] * (len(x) - 2)) if axis == 1 else parameter


@few
@given(AXES, st.sampled_from([1, -1]), st.integers(1, 3), st.booleans(), st.booleans())
def test_affine_and_its_gradients_match_torch(
    shape: tuple[int, ...], axis: int, trailing: int, scaled: bool, shifted: bool
) -> None:
    rng = np.random.default_rng(0)
    size = parameter_shape(shape, axis, trailing)
    x, gy, weights = rng.normal(size=shape), rng.normal(size=shape), rng.uniform(size=shape[0])
    scale = rng.normal(size=size) if scaled else None
    bias = rng.normal(size=size) if shifted else None
    tx, ts, tb = (torch.tensor(np.zeros(1) if a is None else a, requires_grad=True) for a in (x, scale, bias))
    expected = tx * (spread(ts, shape, axis) if scaled else 1) + (spread(tb, shape, axis) if shifted else 0)
    y = run("Affine", [x, scale, bias], [garbage(shape)], axis=axis)
    assert relative_error(y, expected.detach().numpy()) < 1e-12
    (
        expected * torch.tensor(gy) * torch.tensor(weights.reshape(-1, *[1] * (len(shape) - 1)))
    ).sum().backward()
    if scale is not None:
        gx = run("AffineInputGrad", [gy, scale], [garbage(shape)], axis=axis)
        assert relative_error(gx * weights.reshape(-1, *[1] * (len(shape) - 1)), tx.grad.numpy()) < 1e-12
        gs = run("ScaleGrad", [gy, x, weights], [np.zeros_like(scale)], axis=axis)
        assert relative_error(gs, ts.grad.numpy()) < 1e-12
    if bias is not None:
        gb = run("BiasGrad", [gy, weights], [np.zeros_like(bias)], axis=axis)
        assert relative_error(gb, tb.grad.numpy()) < 1e-12


def test_the_input_gradient_is_the_slope_of_the_output() -> None:
    rng = np.random.default_rng(1)
    x, gy, direction, scale, bias = (rng.normal(size=s) for s in ((2, 3, 4),) * 3 + ((3, 4),) * 2)
    ahead, behind = (
        run("Affine", [x + s * direction, scale, bias], [garbage(x.shape)], axis=-1) for s in (1, -1)
    )
    gx = run("AffineInputGrad", [gy, scale], [garbage(x.shape)], axis=-1)
    assert np.vdot(gx, direction) == pytest.approx(np.vdot(gy, ahead - behind) / 2, rel=1e-10)


@few
@given(AXES, st.integers(1, 4))
def test_expand_repeats_the_parameter_and_its_gradient_sums_over_samples(
    shape: tuple[int, ...], samples: int
) -> None:
    rng = np.random.default_rng(2)
    parameter, gy = rng.normal(size=shape), rng.normal(size=(samples, *shape))
    weights = rng.uniform(size=samples)
    y = run("Expand", [parameter], [garbage(gy.shape)])
    assert all((one == parameter).all() for one in y)
    gradient = run("BiasGrad", [gy, weights], [np.zeros_like(parameter)], axis=-1)
    np.testing.assert_allclose(gradient, np.tensordot(weights, gy, 1), atol=1e-12)
