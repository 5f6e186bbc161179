"""Smooth activations: values and gradients against torch, far out included, and the error function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.reference.erf import complementary_error
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, run

torch = pytest.importorskip("torch")
F = torch.nn.functional

TORCH: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "elu": ("Elu", {"alpha": 0.7}, lambda x: F.elu(x, 0.7)),
    "elu-of-one": ("Elu", {"alpha": 1.0}, F.elu),
    "sigmoid": ("Sigmoid", {}, torch.sigmoid),
    "tanh": ("Tanh", {}, torch.tanh),
    "silu": ("Silu", {}, F.silu),
    "hard-swish": ("HardSwish", {}, F.hardswish),
    "gelu": ("Gelu", {"approximate": "none"}, F.gelu),
    "gelu-tanh": ("Gelu", {"approximate": "tanh"}, lambda x: F.gelu(x, approximate="tanh")),
}
FROM_OUTPUT = {"Elu", "Sigmoid", "Tanh"}


def value_and_gradient(name: str, x: Array, gy: Array) -> tuple[Array, Array]:
    kind, attrs, _ = TORCH[name]
    y = run(kind, [x], [garbage(x.shape, x.dtype)], **attrs)
    seen = y if kind in FROM_OUTPUT else x
    return y, run(f"{kind}Grad", [gy, seen], [garbage(x.shape, x.dtype)], **attrs)


def torch_value_and_gradient(name: str, x: Array, gy: Array) -> tuple[Array, Array]:
    tensor = torch.tensor(x.astype(np.float64), requires_grad=True)
    y = TORCH[name][2](tensor)
    (gradient,) = torch.autograd.grad(y, tensor, torch.tensor(gy.astype(np.float64)))
    return y.detach().numpy(), gradient.numpy()


@pytest.mark.parametrize("name", TORCH)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 1000))
def test_values_and_gradients_are_those_of_torch(name: str, shape: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, gy = 3 * rng.normal(size=shape), rng.normal(size=shape)
    for found, expected in zip(
        value_and_gradient(name, x, gy), torch_value_and_gradient(name, x, gy), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", TORCH)
def test_many_chunks_and_float32(name: str) -> None:
    rng = np.random.default_rng(0)
    x, gy = (rng.normal(size=(3, 5, 31, 43)).astype(np.float32) for _ in range(2))
    for found, expected in zip(
        value_and_gradient(name, x, gy), torch_value_and_gradient(name, x, gy), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TORCH)
def test_far_out_nothing_overflows(name: str, dtype: type) -> None:
    x = np.array([[-1e30, -1e4, -90.0, -20.0, -0.0, 0.0, 20.0, 90.0, 1e4, 1e30]], dtype)
    gy = np.ones_like(x)
    for found, expected in zip(
        value_and_gradient(name, x, gy), torch_value_and_gradient(name, x, gy), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", TORCH)
def test_gradients_are_finite_differences(name: str) -> None:
    x = np.linspace(-5.03, 5.04, 60)[None]
    _, gradient = value_and_gradient(name, x, np.ones_like(x))
    ahead, behind = (value_and_gradient(name, x + step, x)[0] for step in (1e-5, -1e-5))
    np.testing.assert_allclose((ahead - behind) / 2e-5, gradient, atol=1e-8)


@pytest.mark.parametrize("name", TORCH)
def test_nan_is_not_hidden(name: str) -> None:
    x = np.array([[np.nan, 1.0]])
    y, gradient = value_and_gradient(name, x, np.ones_like(x))
    assert np.isnan([y[0, 0], gradient[0, 0]]).all()
    assert np.isfinite([y[0, 1], gradient[0, 1]]).all()


def erfc(z: Array) -> Array:
    target = np.empty_like(z)
    complementary_error(z.copy(), target, np.empty_like(z))
    return target


def test_the_error_function_is_pythons() -> None:
    z = np.concatenate([np.linspace(0, 6, 6001), np.linspace(6, 30, 200)])
    expected = np.array([math.erfc(value) for value in z])
    np.testing.assert_allclose(erfc(z), expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(erfc(z[:6001]), expected[:6001], rtol=1e-14)
    single = erfc(z.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=0, atol=3e-7)


def test_gelu_keeps_its_digits_where_one_plus_erf_would_cancel() -> None:
    x = np.array([[-6.0, -5.0, -4.0]], np.float32)
    y = run("Gelu", [x], [garbage(x.shape, np.float32)], approximate="none")
    expected = [[value * 0.5 * math.erfc(-value / math.sqrt(2)) for value in x[0].tolist()]]
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_an_unknown_approximation_is_refused() -> None:
    with pytest.raises(ValueError, match="approximate must be 'none' or 'tanh', got 'sigmoid'"):
        run("Gelu", [np.ones((1, 2))], [garbage((1, 2))], approximate="sigmoid")
