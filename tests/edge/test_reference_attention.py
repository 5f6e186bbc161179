"""Meta attention: clipping by hand and against a plain search, the module against torch, kept channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.reference.attention import clipped
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, run, selected

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("pi", "rho", "cap", "keep"),
    [
        ([0.1, 0.2, 0.3, 0.4], 0.0, None, [1, 1, 1, 1]),
        ([0.1, 0.2, 0.3, 0.4], 0.05, None, [0, 1, 1, 1]),
        ([0.125, 0.125, 0.25, 0.5], 0.25, None, [0, 0, 1, 1]),  # the sum reaches rho exactly
        ([0.125, 0.125, 0.25, 0.5], 0.26, None, [0, 0, 0, 1]),
        ([0.4, 0.3, 0.2, 0.1], 0.05, None, [1, 1, 1, 0]),
        ([0.25, 0.25, 0.25, 0.25], 0.3, None, [0, 0, 1, 1]),  # ties: the lower index is dropped first
        ([0.01, 0.01, 0.97, 0.01], 0.3, None, [0, 0, 1, 0]),  # one entry above 1 - rho: it stays
        ([1.0], 0.3, None, [1]),
        ([1.0], 0.3, 1, [1]),
        ([0.1, 0.2, 0.3, 0.4], 0.05, 2, [0, 0, 1, 1]),  # the cap drops more than rho does
        ([0.1, 0.2, 0.3, 0.4], 0.0, 1, [0, 0, 0, 1]),  # a cap works without rho
        ([0.1, 0.2, 0.3, 0.4], 0.35, 4, [0, 0, 0, 1]),  # rho drops more than the cap does
        ([0.1, 0.2, 0.3, 0.4], 0.0, 9, [1, 1, 1, 1]),  # a cap above the number of channels
        ([0.1, 0.2, 0.3, 0.4], 0.0, 0, [0, 0, 0, 1]),  # never all
    ],
)
def test_clipping_by_hand(pi: list[float], rho: float, cap: int | None, keep: list[int]) -> None:
    assert clipped(np.array(pi), rho, cap).tolist() == keep


def test_rho_is_compared_in_the_precision_of_the_probabilities() -> None:
    """0.16 in float32 lies below 0.16 in float64; torch and ONNX compare in float32."""
    pi = np.array([0.16, 0.34, 0.5], np.float32)
    assert clipped(pi, 0.16, None).tolist() == [0, 1, 1]
    cumulated = torch.from_numpy(pi).cumsum(0)
    assert int((cumulated < torch.tensor(0.16)).sum()) + 1 == 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=12),
    st.integers(0, 9),
    st.one_of(st.none(), st.integers(1, 12)),
)
def test_clipping_drops_the_smallest_until_rho_is_reached(
    weights: list[int], tenths: int, cap: int | None
) -> None:
    """Integers instead of probabilities: sums are exact, the count is found by adding one after the other."""
    total, ascending = sum(weights), sorted(range(len(weights)), key=lambda i: (weights[i], i))
    dropped, reached = 0, 0
    while 10 * reached < tenths * total:
        reached += weights[ascending[dropped]]
        dropped += 1
    dropped = min(max(dropped, len(weights) - (cap or len(weights))), len(weights) - 1)
    expected = [float(i not in ascending[:dropped]) for i in range(len(weights))]
    assert clipped(np.array(weights, np.float64), tenths * total / 10, cap).tolist() == expected


def modules(channels: int, hidden: int) -> list[Array]:
    rng = np.random.default_rng(0)
    shapes = [(hidden, channels), (hidden,), (channels, hidden), (channels,)]
    return [rng.normal(size=shape) for shape in shapes]


def gamma_of(x: Array, params: list[Array], *keep: Array, **attrs: Any) -> Array:
    settings = {"rho": 0.3, "cap": None, "normalize": "none", **attrs}
    return run("ChannelAttention", [x, *params, *keep], [garbage(x.shape[:2], x.dtype)], axis=1, **settings)


def torch_probabilities(x: Array, params: list[Array], rms: bool) -> Array:
    w1, b1, w2, b2 = (torch.tensor(p) for p in params)
    pooled = torch.tensor(x).reshape(*x.shape[:2], -1).mean(2)
    if rms:
        pooled = pooled / (pooled.square().mean(1, keepdim=True).sqrt() + 1e-12)
    hidden = torch.relu(torch.nn.functional.linear(pooled, w1, b1))
    return torch.softmax(torch.nn.functional.linear(hidden, w2, b2), 1).numpy()


@pytest.mark.parametrize("shape", [(3, 6, 4, 5), (3, 6)])
@pytest.mark.parametrize("normalize", ["none", "rms"])
@pytest.mark.parametrize("hidden", [6, 2])
def test_gamma_is_the_clipped_and_normalised_softmax(
    shape: tuple[int, ...], normalize: str, hidden: int
) -> None:
    x, params = np.random.default_rng(1).normal(size=shape), modules(6, hidden)
    pi = torch_probabilities(x, params, normalize == "rms")
    np.testing.assert_allclose(gamma_of(x, params, rho=0.0, normalize=normalize), 6 * pi, rtol=1e-12)
    kept = np.stack([row * clipped(row, 0.3, 4) for row in pi])
    expected = 6 * kept / kept.sum(1, keepdims=True)
    np.testing.assert_allclose(gamma_of(x, params, cap=4, normalize=normalize), expected, rtol=1e-12)


def test_gamma_sums_to_the_number_of_channels() -> None:
    x = np.random.default_rng(2).normal(size=(5, 6, 3, 3)).astype(np.float32)
    params = [p.astype(np.float32) for p in modules(6, 6)]
    np.testing.assert_allclose(gamma_of(x, params).sum(1), 6, rtol=1e-6)


def test_recorded_selections_replace_clipping() -> None:
    x, params = np.random.default_rng(3).normal(size=(2, 6, 3, 3)), modules(6, 6)
    keep = np.array([[1, 0, 0, 1, 0, 1], [0, 1, 1, 1, 1, 1]], np.float64)
    kept = torch_probabilities(x, params, rms=False) * keep
    np.testing.assert_allclose(gamma_of(x, params, keep), 6 * kept / kept.sum(1, keepdims=True), rtol=1e-12)


def test_a_single_channel_always_has_gamma_one() -> None:
    assert gamma_of(np.ones((2, 1, 3, 3)), modules(1, 1)).tolist() == [[1], [1]]


def test_a_gradient_of_zero_is_not_divided_by_zero() -> None:
    assert np.isfinite(gamma_of(np.zeros((1, 6, 2, 2)), modules(6, 6), normalize="rms")).all()


def test_rms_makes_gamma_independent_of_the_gradients_scale() -> None:
    x, params = np.random.default_rng(4).normal(size=(2, 6, 3, 3)), modules(6, 6)
    small, large = (gamma_of(s * x, params, normalize="rms") for s in (1e-3, 10.0))
    np.testing.assert_allclose(small, large, rtol=1e-6)


def test_selected_channels_are_weighed_ascending_and_padded() -> None:
    x = np.arange(1.0, 25).reshape(2, 3, 2, 2)
    gamma = np.array([[2.0, 0, 3], [0, 1, 0]])
    kept, index = selected(x, gamma, 2)
    assert index.tolist() == [[0, 2], [1, -1]]
    np.testing.assert_array_equal(kept, [[2 * x[0, 0], 3 * x[0, 2]], [x[1, 1], np.zeros((2, 2))]])


def test_more_channels_than_planned_are_refused() -> None:
    with pytest.raises(ValueError, match="sample 1 keeps 3 channels of at most 2"):
        selected(np.ones((2, 3, 2, 2)), np.array([[1.0, 0, 1], [1, 1, 1]]), 2)
