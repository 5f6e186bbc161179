"""ReLU, addition, zero, the gradient step, and packed integers."""

from __future__ import annotations

import numpy as np
import pytest
from edge_adapt.edge.reference.bits import pack, packed_bytes, unpack
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import garbage, run


@pytest.mark.parametrize("shape", [(3, 2, 5, 3), (2, 7), (1, 3, 64, 50), (2, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relu_keeps_the_sign_as_one_bit_a_value(shape: tuple[int, ...], dtype: type) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    x.flat[0] = 0
    flat = x.reshape(len(x), -1)
    mask = garbage((len(x), packed_bytes(flat.shape[1], 1)), np.uint8)
    y = run("Relu", [x], [garbage(shape, dtype), mask])
    np.testing.assert_array_equal(y, np.where(x > 0, x, 0))
    np.testing.assert_array_equal(mask, np.packbits(flat > 0, axis=1, bitorder="little"))
    gx = run("MaskGrad", [x + 5, mask], [garbage(shape, dtype)], inside=1.0, outside=0.0)
    np.testing.assert_array_equal(gx, np.where(x > 0, x + 5, 0))


def test_relu_lets_nan_through() -> None:
    x = np.array([[np.nan, -1.0, 1.0]])
    np.testing.assert_array_equal(run("Relu", [x], [garbage((1, 3)), None]), [[np.nan, 0, 1]])


def test_add_and_zero() -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.full((2, 3), 0.5)
    np.testing.assert_array_equal(run("Add", [a, b], [garbage((2, 3))]), a + 0.5)
    np.testing.assert_array_equal(run("Zero", [], [garbage((2, 3))]), np.zeros((2, 3)))


@pytest.mark.parametrize("size", [1, 2047, 2048, 5000])
def test_the_step_takes_its_own_row_and_layer(size: int) -> None:
    rng = np.random.default_rng(1)
    w, gradient, alpha = rng.normal(size=size), rng.normal(size=size), rng.uniform(size=(5, 3))
    updated = run("SgdUpdate", [w, gradient, alpha], [garbage((size,))], step=4, layer_index=1)
    np.testing.assert_allclose(updated, w - alpha[4, 1] * gradient, rtol=1e-15)


def test_a_step_size_of_zero_changes_nothing() -> None:
    w, gradient = np.array([1.0, -2.0]), np.array([3.0, 4.0])
    updated = run("SgdUpdate", [w, gradient, np.zeros((1, 1))], [garbage((2,))], step=0, layer_index=0)
    np.testing.assert_array_equal(updated, w)


def test_a_step_without_its_number_is_refused() -> None:
    with pytest.raises(ValueError, match="attribute 'step' must be an integer, got None"):
        run("SgdUpdate", [np.ones(2), np.ones(2), np.ones((1, 1))], [garbage((2,))], layer_index=0)


def test_packed_integers_have_the_lowest_bits_first() -> None:
    packed = garbage((2,), np.uint8)
    pack(np.array([1, 2, 3, 0, 2, 0, 0, 0], np.uint8), 2, packed)
    assert packed.tolist() == [0b00_11_10_01, 0b10]
    pack(np.array([0xA, 0x5, 0xF, 0x0], np.uint8), 4, packed)
    assert packed.tolist() == [0x5A, 0x0F]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from([1, 2, 4, 8]), st.integers(1, 6), st.integers(0, 1000))
def test_unpack_undoes_pack(bits: int, octets: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << bits, octets * 8 // bits).astype(np.uint8)
    packed, back = garbage((octets,), np.uint8), garbage((values.size,), np.uint8)
    pack(values.copy(), bits, packed)
    unpack(packed, bits, back)
    np.testing.assert_array_equal(back, values)


def test_packed_samples_round_up_to_whole_bytes() -> None:
    assert [packed_bytes(9, bits) for bits in (1, 2, 4, 8)] == [2, 3, 5, 9]
