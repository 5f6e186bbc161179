"""Native activations, parameters of channels, softmax, layer norm and policy losses against the reference kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage
from .native_calls import call, check, expected, normal, packed, variants

few = settings(max_examples=30, deadline=None, derandomize=True)
spaces = st.lists(st.integers(1, 9), min_size=0, max_size=3)
WIDE = np.concatenate([np.linspace(-30, 30, 4001), np.geomspace(1e-6, 1, 200), -np.geomspace(1e-6, 1, 200)])
SMOOTH: list[tuple[str, dict[str, Any]]] = [
    ("Elu", {"alpha": 0.7}), ("Sigmoid", {}), ("Tanh", {}), ("Silu", {}), ("HardSwish", {}),
    ("Gelu", {"approximate": "none"}), ("Gelu", {"approximate": "tanh"}),
]  # fmt: skip
FROM_Y = ("Elu", "Sigmoid", "Tanh")
smooth = pytest.mark.parametrize(("kind", "attrs"), SMOOTH)


@variants()
@smooth
def test_smooth_activations_are_right_to_rounding_everywhere(
    variant: str, kind: str, attrs: dict[str, Any]
) -> None:
    x = WIDE.astype(np.float32)[None]
    found = call(variant, kind, [x], [garbage(x.shape)], attrs)[0]
    truth = expected(kind, [x], [garbage(x.shape)], attrs)[0]
    assert found is not None
    assert truth is not None
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=2e-7 if kind != "Sigmoid" else 1e-12)


@variants()
@smooth
def test_gradients_of_smooth_activations(variant: str, kind: str, attrs: dict[str, Any]) -> None:
    x = WIDE.astype(np.float32)[None]
    if kind in FROM_Y:
        x = expected(kind, [x], [garbage(x.shape)], attrs)[0].astype(np.float32)
    check(variant, f"{kind}Grad", [normal(0, *x.shape), x], [garbage(x.shape)], attrs)


@variants()
@smooth
def test_not_a_number_and_huge_values_pass(variant: str, kind: str, attrs: dict[str, Any]) -> None:
    x = np.float32([[np.nan, 1e30, -1e15, 0.0]])
    found = call(variant, kind, [x], [garbage(x.shape)], attrs)[0]
    truth = expected(kind, [x], [garbage(x.shape)], attrs)[0]
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=1e-6)


BOUNDS = [(None, None), (0.0, 6.0), (-0.5, None), (None, 0.5)]


@variants()
@few
@given(batch=st.integers(1, 3), count=st.integers(1, 200), bounds=st.sampled_from(BOUNDS))
def test_masked_activations(
    variant: str, batch: int, count: int, bounds: tuple[float | None, float | None]
) -> None:
    x = 2 * normal(0, batch, count)
    outputs: list[Array | None] = [garbage(x.shape), packed(x.shape, 1)]
    check(variant, "Clip", [x], outputs, {"min": bounds[0], "max": bounds[1]})
    check(variant, "LeakyRelu", [x], outputs, {"alpha": 0.2})
    check(variant, "HardSigmoid", [x], outputs, {"alpha": 1 / 6, "beta": 0.5})


@variants()
@few
@given(batch=st.integers(1, 3), channels=st.integers(1, 20), space=spaces, one=st.booleans())
def test_prelu(variant: str, batch: int, channels: int, space: list[int], one: bool) -> None:
    x, slope = normal(0, batch, channels, *space), normal(1, 1 if one else channels)
    gy, weights = normal(2, *x.shape), normal(3, batch)
    check(variant, "PRelu", [x, slope], [garbage(x.shape)], {})
    check(variant, "PReluInputGrad", [gy, x, slope], [garbage(x.shape)], {})
    check(variant, "PReluSlopeGrad", [gy, x, weights], [normal(4, slope.size).astype(np.float64)], {}, 1e-5)


@variants()
@few
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 20), space=spaces, scaled=st.booleans(), shifted=st.booleans()
)  # fmt: skip
def test_affine(
    variant: str, batch: int, channels: int, space: list[int], scaled: bool, shifted: bool
) -> None:
    for axis, x in ((1, normal(0, batch, channels, *space)), (-1, normal(0, batch, *space, channels))):
        scale, bias = (normal(i, channels) if on else None for i, on in ((1, scaled), (2, shifted)))
        check(variant, "Affine", [x, scale, bias], [garbage(x.shape)], {"axis": axis})
        if scale is not None:
            check(variant, "AffineInputGrad", [x, scale], [garbage(x.shape)], {"axis": axis})
    for shape in ((channels, *space), tuple(space)):
        check(variant, "Expand", [normal(3, *shape)], [garbage((batch, channels, *space))], {})


@variants()
@few
@given(batch=st.integers(1, 3), space=spaces, width=st.integers(2, 70), dims=st.integers(1, 2))
def test_rows(variant: str, batch: int, space: list[int], width: int, dims: int) -> None:
    x, gy = 4 * normal(0, batch, *space, width), normal(1, batch, *space, width)
    check(variant, "Softmax", [x], [garbage(x.shape)], {})
    check(variant, "SoftmaxGrad", [gy, np.abs(normal(2, *x.shape))], [garbage(x.shape)], {})
    if dims >= x.ndim:
        return
    split = x.ndim - dims
    scale, bias, inv_std = (
        normal(3, *x.shape[split:]),
        normal(4, *x.shape[split:]),
        normal(5, *x.shape[:split]),
    )
    outputs = [garbage(x.shape), garbage(x.shape), garbage(inv_std.shape)]
    check(variant, "LayerNorm", [x, scale, bias], outputs, {"dims": dims, "eps": 1e-3}, 2e-5)
    inputs = [gy, normal(6, *x.shape), np.abs(inv_std), scale]
    check(variant, "LayerNormInputGrad", inputs, [garbage(x.shape)], {"dims": dims}, 1e-5)


@variants()
@few
@given(batch=st.integers(1, 4), times=st.integers(0, 5), actions=st.integers(1, 9))
def test_policy_losses(variant: str, batch: int, times: int, actions: int) -> None:
    lead = (batch, times) if times else (batch,)
    values, advantages, weights = normal(0, *lead, actions), normal(1, *lead), normal(2, batch)
    outputs: list[Array | None] = [garbage((1,)), garbage(values.shape)]
    taken = np.random.default_rng(3).integers(0, actions, lead)
    check(variant, "CategoricalPolicyGradient", [values, taken, advantages, weights], outputs, {}, 1e-5)
    inputs = [values, normal(4, actions), normal(5, *values.shape), advantages, weights]
    check(variant, "GaussianPolicyGradient", inputs, outputs, {}, 1e-5)
    check(variant, "GaussianLogStdGrad", inputs, [normal(6, actions).astype(np.float64)], {}, 1e-5)
