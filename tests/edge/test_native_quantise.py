"""Maps in 8 and 16 bits: how near they stay, and that both engines write the same levels."""

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
BITS = (8, 16)
both_widths = pytest.mark.parametrize("bits", BITS)


def _room(x: Array, bits: int) -> list[Array]:
    """Where levels and ranges go."""
    return [garbage(x.shape, f"uint{bits}"), garbage((*x.shape[:2], 2), x.dtype)]


def _packed(x: Array, bits: int) -> list[Array]:
    outputs = _room(x, bits)
    run("Quantise", [x], outputs)
    return outputs


def _unpacked(levels: Array, ranges: Array) -> Array:
    return np.asarray(run("Dequantise", [levels, ranges], [garbage(levels.shape, ranges.dtype)]))


def _map(batch: int, channels: int, space: list[int], scale: float, offset: float) -> Array:
    return ((normal(0, batch, channels, *space) + np.float32(offset)) * np.float32(scale)).astype(np.float32)


@both_widths
@few
@given(batch=st.integers(1, 3), channels=st.integers(1, 9), space=shapes, scale=scales, offset=offsets)
def test_every_element_comes_back_within_half_a_step(
    bits: int, batch: int, channels: int, space: list[int], scale: float, offset: float
) -> None:
    x = _map(batch, channels, space, scale, offset).reshape(batch, channels, -1)
    levels, ranges = _packed(x, bits)
    low, step = ranges[..., 0], ranges[..., 1].astype(np.float64)
    most, span = 2**bits - 1, np.ptp(x, axis=2)
    np.testing.assert_array_equal(low, x.min(axis=2))
    ideal = span / np.float32(most)
    wanted = np.where(ideal > 0, ideal, 1)
    tiny = most * np.float64(np.finfo(np.float32).smallest_subnormal)
    assert (step >= wanted).all()
    assert (step <= wanted * (1 + 2.0 ** (bits - 23)) + tiny).all()
    error = np.abs(_unpacked(levels, ranges).astype(np.float64) - x).max(axis=2)
    half = np.where(ideal > 0, step * (0.5 + 2.0 ** (bits - 23)), span)
    assert (error <= half + np.spacing(np.abs(x).max(axis=2))).all()


@both_widths
@few
@given(scale=scales, offset=offsets, seed=st.integers(0, 99))
def test_a_level_times_a_step_is_exact(bits: int, scale: float, offset: float, seed: int) -> None:
    x = _map(1, 8, [9, seed + 1], scale, offset)
    levels, ranges = _packed(x, bits)
    step = ranges[..., 1].reshape(1, 8, 1, 1)
    np.testing.assert_array_equal(levels * step, levels * step.astype(np.float64))


@both_widths
def test_levels_are_rounded_half_to_even(bits: int) -> None:
    most = 2**bits - 1
    x = np.array([0, 0.5, 1.5, 2.5, 2.51, most - 0.5, most], np.float32).reshape(1, 1, 7)
    levels, ranges = _packed(x, bits)
    assert ranges.tolist() == [[[0.0, 1.0]]]
    assert levels.tolist() == [[[0, 0, 2, 2, 3, most - 1, most]]]


@both_widths
def test_a_constant_channel_is_exact(bits: int) -> None:
    x = np.full((1, 2, 9), 0.3, np.float32)
    levels, ranges = _packed(x, bits)
    np.testing.assert_array_equal(_unpacked(levels, ranges), x)
    np.testing.assert_array_equal(ranges[..., 1], 1)


@both_widths
def test_float64_keeps_to_the_same_bound(bits: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 40))
    levels, ranges = _packed(x, bits)
    assert (np.abs(_unpacked(levels, ranges) - x) <= ranges[..., 1:] / 2 * (1 + 1e-9)).all()
    span = np.ptp(x, axis=2)
    assert (ranges[..., 1] <= span / (2**bits - 1) * (1 + 2.0 ** (bits - 23))).all()


@both_widths
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 5, 40])
def test_what_is_not_finite_is_not_hidden(bits: int, bad: float, place: int) -> None:
    x = normal(0, 1, 2, 41)
    x[0, 1, place] = bad
    levels, ranges = _packed(x, bits)
    assert not np.isfinite(_unpacked(levels, ranges)[0, 1, place])
    assert np.isfinite(_unpacked(levels, ranges)[0, 0]).all()


@variants()
@both_widths
@few
@given(
    batch=st.integers(1, 3), channels=st.integers(1, 9), space=shapes, scale=scales, offset=offsets,
    threads=st.integers(1, 2),
)  # fmt: skip
def test_native_and_reference_agree_exactly(
    variant: str, bits: int, batch: int, channels: int, space: list[int], scale: float, offset: float, threads: int
) -> None:  # fmt: skip
    x = _map(batch, channels, space, scale, offset)
    levels, ranges = _packed(x, bits)
    found = call(variant, "Quantise", [x], _room(x, bits), {}, threads)
    np.testing.assert_array_equal(found[1], ranges)
    np.testing.assert_array_equal(found[0], levels)
    unpacked = call(variant, "Dequantise", [levels, ranges], [garbage(x.shape, np.float32)], {}, threads)
    np.testing.assert_array_equal(unpacked[0], _unpacked(levels, ranges))


@variants()
@both_widths
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 5, 40])
def test_native_kernels_do_not_hide_what_is_not_finite(
    variant: str, bits: int, bad: float, place: int
) -> None:
    x = normal(0, 1, 2, 41)
    x[0, 1, place] = bad
    levels, ranges = call(variant, "Quantise", [x], _room(x, bits), {})
    (found,) = call(variant, "Dequantise", [levels, ranges], [garbage(x.shape, np.float32)], {})
    assert found is not None
    assert not np.isfinite(found[0, 1, place])
    assert np.isfinite(found[0, 0]).all()
