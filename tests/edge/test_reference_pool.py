"""Max pooling against a search of every window, its gradient against torch autograd and by hand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.reference.bits import packed_bytes, unpack
from edge_adapt.edge.reference.pool import argmax_bits
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, run

torch = pytest.importorskip("torch")


@dataclass(frozen=True)
class Problem:
    """A pooling; padding is smaller than the kernel, so that every window has an element."""

    batch: int = 2
    channels: int = 3
    size: tuple[int, int] = (6, 5)
    kernel: tuple[int, int] = (2, 2)
    strides: tuple[int, int] = (2, 2)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def attrs(self) -> dict[str, Any]:
        return {name: list(getattr(self, name)) for name in ("kernel", "strides", "pads")}

    @property
    def out(self) -> tuple[int, int, int, int]:
        top, left, bottom, right = self.pads
        padded = (self.size[0] + top + bottom, self.size[1] + left + right)
        rows, columns = ((p - k) // s + 1 for p, k, s in zip(padded, self.kernel, self.strides, strict=True))
        return self.batch, self.channels, rows, columns

    @property
    def fits(self) -> bool:
        return min(self.out) > 0 and all(p < self.kernel[i % 2] for i, p in enumerate(self.pads))

    @property
    def bits(self) -> int:
        return argmax_bits(self.kernel[0] * self.kernel[1])

    def packed(self) -> Array:
        """Memory for the argmax."""
        return garbage((self.batch, packed_bytes(int(np.prod(self.out[1:])), self.bits)), np.uint8)

    def unpacked(self, argmax: Array) -> Array:
        places = garbage((self.batch, argmax.shape[1] * 8 // self.bits), np.uint8)
        for sample, target in zip(argmax, places, strict=True):
            unpack(sample, self.bits, target)
        return places[:, : int(np.prod(self.out[1:]))].reshape(self.out)

    def searched(self, x: Array) -> tuple[Array, Array]:
        """Maximum and first place of every window, by looking at it."""
        top, left, bottom, right = self.pads
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-np.inf)
        best, place = np.empty(self.out), np.empty(self.out, np.uint8)
        for n, c, i, j in product(*map(range, self.out)):
            row, column = i * self.strides[0], j * self.strides[1]
            window = padded[n, c, row : row + self.kernel[0], column : column + self.kernel[1]].ravel()
            best[n, c, i, j], place[n, c, i, j] = window.max(), window.argmax()
        return best, place


PROBLEMS = st.builds(
    Problem,
    batch=st.integers(1, 3),
    channels=st.integers(1, 5),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
)
few = settings(max_examples=60, deadline=None, derandomize=True)


@few
@given(PROBLEMS, st.booleans())
def test_pooling_finds_the_first_maximum_of_every_window(problem: Problem, ties: bool) -> None:
    assume(problem.fits)
    rng = np.random.default_rng(0)
    shape = (problem.batch, problem.channels, *problem.size)
    x = rng.integers(-2, 2, shape).astype(np.float64) if ties else rng.normal(size=shape)
    argmax = problem.packed()
    y = run("MaxPool", [x], [garbage(problem.out), argmax], **problem.attrs)
    best, place = problem.searched(x)
    np.testing.assert_array_equal(y, best)
    np.testing.assert_array_equal(problem.unpacked(argmax), place)


@few
@given(PROBLEMS)
def test_the_gradient_matches_torch_where_windows_overlap(problem: Problem) -> None:
    assume(problem.fits)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(problem.batch, problem.channels, *problem.size))
    argmax, tx = problem.packed(), torch.tensor(x, requires_grad=True)
    run("MaxPool", [x], [None, argmax], **problem.attrs)
    top, left, bottom, right = problem.pads
    padded = torch.nn.functional.pad(tx, (left, right, top, bottom), value=-np.inf)
    pooled = torch.nn.functional.max_pool2d(padded, problem.kernel, problem.strides)
    gy = rng.normal(size=problem.out)
    pooled.backward(torch.tensor(gy))
    gx = run("MaxPoolGrad", [gy, argmax], [garbage(x.shape)], **problem.attrs)
    np.testing.assert_allclose(gx, tx.grad.numpy(), atol=1e-14)


def test_an_element_that_wins_two_windows_gets_both_gradients() -> None:
    problem = Problem(batch=1, channels=1, size=(1, 3), kernel=(1, 2), strides=(1, 1))
    argmax = problem.packed()
    x = np.array([[[[0.0, 9.0, 1.0]]]])
    run("MaxPool", [x], [garbage(problem.out), argmax], **problem.attrs)
    gx = run("MaxPoolGrad", [np.array([[[[2.0, 3.0]]]]), argmax], [garbage(x.shape)], **problem.attrs)
    assert gx.ravel().tolist() == [0, 5, 0]


def test_pooling_lets_nan_through() -> None:
    problem = Problem(batch=1, channels=1, size=(2, 2))
    for place in range(4):
        x = np.zeros((1, 1, 2, 2))
        x.flat[place] = np.nan
        assert np.isnan(run("MaxPool", [x], [garbage(problem.out), problem.packed()], **problem.attrs)).all()


@pytest.mark.parametrize("channels", [5, 7, 200])
def test_packed_chunks_start_on_a_byte(channels: int) -> None:
    problem = Problem(
        channels=channels, size=(18, 22), kernel=(2, 2)
    )  # 9*11 places a channel: not a multiple of 4
    x = np.random.default_rng(2).normal(size=(2, channels, 18, 22))
    argmax = problem.packed()
    run("MaxPool", [x], [None, argmax], **problem.attrs)
    np.testing.assert_array_equal(problem.unpacked(argmax), problem.searched(x)[1])


@pytest.mark.parametrize(("taps", "bits"), [(1, 2), (4, 2), (5, 4), (16, 4), (17, 8), (256, 8)])
def test_bits_of_the_place_in_a_window(taps: int, bits: int) -> None:
    assert argmax_bits(taps) == bits


def test_a_window_too_large_for_its_argmax_is_refused() -> None:
    with pytest.raises(ValueError, match="257 elements does not fit the argmax: at most 256"):
        argmax_bits(257)
