"""Maps in 8 bits: how near they stay, and that both engines write the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, run
from .native_calls import call, normal, variants

few = settings(max_examples=60, deadline=None, derandomize=True)
shapes = st.lists(st.integers(1, 70), min_size=1, max_size=2)
scales = st.sampled_from([1e-40, 1e-12, 1.0, 3e4, 1e30])
offsets = st.sampled_from([0.0, -1.0, 100.0])


def _packed(x: Array) -> list[Array]:
    outputs = [garbage(x.shape, np.uint8), garbage((*x.shape[:2], 2), x.dtype)]
    run("Quantise", [x], outputs)
    return outputs


def _unpacked(octets: Array, ranges: Array) -> Array:
    return np.asarray(run("Dequantise", [octets, ranges], [garbage(octets.shape, ranges.dtype)]))


def _map(batch: int, channels: int, space: list[int], scale: float, offset: float) -> Array:
    return ((normal(0, batch, channels, *space) + np.float32(offset)) * np.float32(scale)).astype(np.float32)


@few
@given(batch=st.integers(1, 3), channels=st.integers(1, 9), space=shapes, scale=scales, offset=offsets)
def test_every_element_comes_back_within_half_a_step(
    batch: int, channels: int, space: list[int], scale: float, offset: float
) -> None:
    x = _map(batch, channels, space, scale, offset)
    octets, ranges = _packed(x)
    low, step = (ranges[..., i].reshape(batch, channels, *(1 for _ in space)) for i in range(2))
    flat = x.reshape(batch, channels, -1)
    np.testing.assert_array_equal(low.reshape(batch, channels), flat.min(axis=2))
    span = np.ptp(flat.astype(np.float64), axis=2)
    wanted = np.where(span > 0, span / 255, 1)
    tiny = 512 * np.float64(np.finfo(np.float32).smallest_subnormal)
    np.testing.assert_allclose(step.reshape(batch, channels), wanted, rtol=2.0**-14, atol=tiny)
    error = np.abs(_unpacked(octets, ranges).astype(np.float64) - x)
    rounding = np.spacing(np.abs(x).max(axis=tuple(range(1, x.ndim)), keepdims=True))
    assert (error <= step / 2 * 1.0001 + rounding).all()


def test_levels_are_rounded_half_to_even() -> None:
    x = np.array([0, 0.5, 1.5, 2.5, 2.51, 254.5, 255], np.float32).reshape(1, 1, 7)
    octets, ranges = _packed(x)
    assert ranges.tolist() == [[[0.0, 1.0]]]
    assert octets.tolist() == [[[0, 0, 2, 2, 3, 254, 255]]]


def test_a_constant_channel_is_exact() -> None:
    x = np.full((1, 2, 9), 0.3, np.float32)
    octets, ranges = _packed(x)
    np.testing.assert_array_equal(_unpacked(octets, ranges), x)
    np.testing.assert_array_equal(ranges[..., 1], 1)


def test_float64_keeps_to_the_same_bound() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 40))
    octets, ranges = _packed(x)
    assert (np.abs(_unpacked(octets, ranges) - x) <= ranges[..., 1:] / 2 * 1.0001).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 5, 40])
def test_what_is_not_finite_is_not_hidden(bad: float, place: int) -> None:
    x = normal(0, 1, 2, 41)
    x[0, 1, place] = bad
    octets, ranges = _packed(x)
    assert not np.isfinite(_unpacked(octets, ranges)[0, 1, place])
    assert np.isfinite(_unpacked(octets, ranges)[0, 0]).all()


@variants()
@few
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 9), space=shapes, scale=scales, offset=offsets,
    threads=st.integers(1, 2),
)  # fmt: skip
def test_native_and_reference_agree_exactly(
    variant: str, batch: int, channels: int, space: list[int], scale: float, offset: float, threads: int
) -> None:
    x = _map(batch, channels, space, scale, offset)
    octets, ranges = _packed(x)
    empty = [garbage(octets.shape, np.uint8), garbage(ranges.shape, np.float32)]
    found = call(variant, "Quantise", [x], empty, {}, threads)
    np.testing.assert_array_equal(found[1], ranges)
    np.testing.assert_array_equal(found[0], octets)
    unpacked = call(variant, "Dequantise", [octets, ranges], [garbage(x.shape, np.float32)], {}, threads)
    np.testing.assert_array_equal(unpacked[0], _unpacked(octets, ranges))


@variants()
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 5, 40])
def test_native_kernels_do_not_hide_what_is_not_finite(variant: str, bad: float, place: int) -> None:
    x = normal(0, 1, 2, 41)
    x[0, 1, place] = bad
    octets, ranges = call(
        variant, "Quantise", [x], [garbage(x.shape, np.uint8), garbage((1, 2, 2), np.float32)], {}
    )
    (found,) = call(variant, "Dequantise", [octets, ranges], [garbage(x.shape, np.float32)], {})
    assert found is not None
    assert not np.isfinite(found[0, 1, place])
    assert np.isfinite(found[0, 0]).all()
