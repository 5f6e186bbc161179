"""Piecewise linear activations, their bit masks and gradients; PReLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.reference.bits import packed_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, run

torch = pytest.importorskip("torch")
F = torch.nn.functional

Spec = tuple[str, dict[str, Any], dict[str, float], Callable[[Any], Any]]
ALL: dict[str, Spec] = {
    "relu": ("Relu", {}, {"inside": 1.0, "outside": 0.0}, F.relu),
    "relu6": ("Clip", {"min": 0.0, "max": 6.0}, {"inside": 1.0, "outside": 0.0}, F.relu6),
    "at-least": (
        "Clip", {"min": -0.5, "max": None}, {"inside": 1.0, "outside": 0.0}, lambda x: x.clamp(min=-0.5)),
    "at-most": (
        "Clip", {"min": None, "max": 0.5}, {"inside": 1.0, "outside": 0.0}, lambda x: x.clamp(max=0.5)),
    "leaky-relu": (
        "LeakyRelu", {"alpha": 0.2}, {"inside": 1.0, "outside": 0.2}, lambda x: F.leaky_relu(x, 0.2)),
    "steep-leaky-relu": (
        "LeakyRelu", {"alpha": 1.5}, {"inside": 1.0, "outside": 1.5}, lambda x: F.leaky_relu(x, 1.5)),
    "hard-sigmoid": (
        "HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, {"inside": 1 / 6, "outside": 0.0},
        lambda x: (x / 6 + 0.5).clamp(0, 1)),  # in float64, the gradient of torch's own has a float32 1/6 in it
}  # fmt: skip


def value_and_gradient(name: str, x: Array, gy: Array) -> tuple[Array, Array, Array]:
    kind, attrs, slopes, _ = ALL[name]
    mask = garbage((len(x), packed_bytes(x[0].size, 1)), np.uint8)
    y = run(kind, [x], [garbage(x.shape, x.dtype), mask], **attrs)
    return y, mask, run("MaskGrad", [gy, mask], [garbage(x.shape, x.dtype)], **slopes)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(0, 1000))
def test_values_masks_and_gradients_are_those_of_torch(name: str, shape: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, gy = 4 * rng.normal(size=shape), rng.normal(size=shape)
    tensor = torch.tensor(x, requires_grad=True)
    expected = ALL[name][3](tensor)
    (slope,) = torch.autograd.grad(expected.sum(), tensor, retain_graph=True)
    (gradient,) = torch.autograd.grad(expected, tensor, torch.tensor(gy))
    y, mask, gx = value_and_gradient(name, x, gy)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(gx, gradient.numpy(), rtol=1e-14)
    inside = slope.numpy().reshape(len(x), -1) == ALL[name][2]["inside"]
    np.testing.assert_array_equal(mask, np.packbits(inside, axis=1, bitorder="little"))


@pytest.mark.parametrize("name", ALL)
def test_many_chunks_and_each_output_alone(name: str) -> None:
    rng = np.random.default_rng(1)
    x, gy = (rng.normal(size=(2, 3, 70, 90)).astype(np.float32) for _ in range(2))
    kind, attrs, _, function = ALL[name]
    y, mask, _ = value_and_gradient(name, x, gy)
    np.testing.assert_allclose(y, function(torch.tensor(x)).numpy(), rtol=1e-6, atol=1e-7)
    alone, mask_alone = garbage(x.shape, x.dtype), garbage(mask.shape, np.uint8)
    run(kind, [x], [alone, None], **attrs)
    run(kind, [x], [None, mask_alone], **attrs)
    np.testing.assert_array_equal(alone, y)
    np.testing.assert_array_equal(mask_alone, mask)


def test_a_value_on_a_bound_is_outside() -> None:
    x = np.array([[0.0, 6.0, 1.0, -3.0, 3.0, 0.0, 0.0, 0.0]])
    _, mask, gradient = value_and_gradient("relu6", x, np.ones_like(x))
    assert mask.tolist() == [[0b0001_0100]]
    assert gradient.tolist() == [[0, 0, 1, 0, 1, 0, 0, 0]]
    _, mask, _ = value_and_gradient("hard-sigmoid", x, np.ones_like(x))
    assert mask.tolist() == [[0b1110_0101]]


def prelu(x: Array, slope: Array, gy: Array, weight: Array) -> tuple[Array, Array, Array]:
    y = run("PRelu", [x, slope], [garbage(x.shape)])
    gx = run("PReluInputGrad", [gy, x, slope], [garbage(x.shape)])
    return y, gx, run("PReluSlopeGrad", [gy, x, weight], [np.zeros(slope.shape)])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 7), min_size=2, max_size=4), st.booleans(), st.integers(0, 1000))
def test_prelu_is_torchs(shape: list[int], shared: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, gy, slope = rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=1 if shared else shape[1])
    weight = rng.uniform(size=shape[0])
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, slope)]
    y = F.prelu(*tensors)
    each = [
        torch.autograd.grad(y[n], tensors[1], torch.tensor(gy[n]), retain_graph=True)[0]
        for n in range(len(x))
    ]
    (gx,) = torch.autograd.grad(y, tensors[0], torch.tensor(gy))
    found = prelu(x, slope, gy, weight)
    np.testing.assert_allclose(found[0], y.detach().numpy(), rtol=1e-14)
    np.testing.assert_allclose(found[1], gx.numpy(), rtol=1e-14)
    expected = sum(weight[n] * each[n].numpy() for n in range(len(x)))
    np.testing.assert_allclose(found[2], expected, rtol=1e-11, atol=1e-13)


def test_prelu_over_many_chunks_adds_to_what_is_there() -> None:
    rng = np.random.default_rng(2)
    x, gy, slope = rng.normal(size=(2, 3, 50, 60)), rng.normal(size=(2, 3, 50, 60)), rng.normal(size=3)
    gradient = np.ones(3)
    run("PReluSlopeGrad", [gy, x, np.array([0.25, 0.75])], [gradient])
    low = (np.minimum(x, 0) * gy).sum((2, 3))
    np.testing.assert_allclose(gradient, 1 + 0.25 * low[0] + 0.75 * low[1], rtol=1e-12)
    y, gx, _ = prelu(x, slope, gy, np.ones(2))
    factor = np.where(x > 0, 1, slope[:, None, None])
    np.testing.assert_allclose(y, x * factor, rtol=1e-15)
    np.testing.assert_allclose(gx, gy * factor, rtol=1e-15)
