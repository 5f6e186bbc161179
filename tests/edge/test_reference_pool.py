"""Max pooling against a search of every window, its gradient against torch autograd and by hand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.program import DTYPE_BITS
from edge_adapt.edge.reference.bits import packed_bytes, unpack
from edge_adapt.edge.reference.pool import argmax_type
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
        return DTYPE_BITS[argmax_type(self.kernel[0] * self.kernel[1])]

    def packed(self) -> Array:
        """Memory for the argmax."""
        if self.bits < 8:
            return garbage((self.batch, packed_bytes(int(np.prod(self.out[1:])), self.bits)), np.uint8)
        return garbage(self.out, np.uint8 if self.bits == 8 else np.int32)

    def unpacked(self, argmax: Array) -> Array:
        if self.bits >= 8:
            return argmax
        places = garbage((self.batch, argmax.shape[1] * 8 // self.bits), np.uint8)
        for sample, target in zip(argmax, places, strict=True):
            unpack(sample, self.bits, target)
        return places[:, : int(np.prod(self.out[1:]))].reshape(self.out)

    def searched(self, x: Array) -> tuple[Array, Array]:
        """Maximum and first place of every window, by looking at it."""
        top, left, bottom, right = self.pads
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-np.inf)
        best, place = np.empty(self.out), np.empty(self.out, np.int64)
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


@pytest.mark.parametrize(("taps", "bits"), [(1, 2), (4, 2), (5, 4), (16, 4), (17, 8), (256, 8), (257, 32)])
def test_bits_of_the_place_in_a_window(taps: int, bits: int) -> None:
    assert DTYPE_BITS[argmax_type(taps)] == bits


@pytest.mark.parametrize("kernel", [(17, 18), (5, 3), (1, 300)])
def test_large_windows_have_large_places(kernel: tuple[int, int]) -> None:
    problem = Problem(size=(19, 320), kernel=kernel, strides=(1, 150), pads=(0, 0, 1, 1))
    x = np.random.default_rng(3).normal(size=(2, 3, *problem.size))
    argmax, tx = problem.packed(), torch.tensor(x, requires_grad=True)
    y = run("MaxPool", [x], [garbage(problem.out), argmax], **problem.attrs)
    best, place = problem.searched(x)
    np.testing.assert_array_equal(y, best)
    np.testing.assert_array_equal(problem.unpacked(argmax), place)
    gy = np.random.default_rng(4).normal(size=problem.out)
    padded = torch.nn.functional.pad(tx, (0, 1, 0, 1), value=-np.inf)
    torch.nn.functional.max_pool2d(padded, kernel, (1, 150)).backward(torch.tensor(gy))
    gx = run("MaxPoolGrad", [gy, argmax], [garbage(x.shape)], **problem.attrs)
    np.testing.assert_allclose(gx, tx.grad.numpy(), atol=1e-14)


@few
@given(PROBLEMS)
def test_a_signal_is_pooled_like_a_picture_of_one_row(problem: Problem) -> None:
    length, kernel, stride, pads = problem.size[1], problem.kernel[1], problem.strides[1], problem.pads[1::2]
    row = Problem(
        problem.batch, problem.channels, (1, length), (1, kernel), (1, stride), (0, pads[0], 0, pads[1])
    )
    assume(row.fits)
    x = np.random.default_rng(5).normal(size=(row.batch, row.channels, 1, length))
    attrs = {"kernel": [kernel], "strides": [stride], "pads": list(pads)}
    flat = (row.batch, row.channels, row.out[3])
    index, expected_index = row.packed(), row.packed()
    y = run(
        "MaxPool", [x[:, :, 0]], [garbage(flat), index.reshape(flat) if row.bits >= 8 else index], **attrs
    )
    expected = run("MaxPool", [x], [garbage(row.out), expected_index], **row.attrs)
    np.testing.assert_array_equal(y, expected[:, :, 0])
    np.testing.assert_array_equal(index, expected_index)
    gx = run("MaxPoolGrad", [y, index], [garbage(x[:, :, 0].shape)], **attrs)
    expected_gx = run("MaxPoolGrad", [expected, index], [garbage(x.shape)], **row.attrs)
    np.testing.assert_array_equal(gx, expected_gx[:, :, 0])


STALE = [((3, 3), (1, 1), (1, 1, 1, 1)), ((2, 2), (3, 3), (0, 0, 0, 0)), ((2, 3), (3, 2), (1, 0, 0, 1))]


@pytest.mark.parametrize("byte", [0xFF, 0x7F, 0x01])
@pytest.mark.parametrize(("kernel", "strides", "pads"), STALE, ids=["overlapping", "not-covering", "both"])
def test_what_lay_in_memory_before_does_not_reach_the_gradient(
    kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, int, int, int], byte: int
) -> None:
    """Every output and the workspace hold NaN, huge or tiny numbers before the kernel runs."""
    problem = Problem(size=(8, 9), kernel=kernel, strides=strides, pads=pads)
    x = np.random.default_rng(6).normal(size=(2, 3, 8, 9))
    argmax, tx = problem.packed(), torch.tensor(x, requires_grad=True)
    poisoned = garbage(x.shape)
    for memory in (argmax, poisoned):
        memory.view(np.uint8).fill(byte)
    run("MaxPool", [x], [None, argmax], **problem.attrs)
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(tx, (left, right, top, bottom), value=-np.inf)
    pooled = torch.nn.functional.max_pool2d(padded, kernel, strides)
    pooled.sum().backward()
    gx = run("MaxPoolGrad", [np.ones(problem.out), argmax], [poisoned], **problem.attrs)
    np.testing.assert_array_equal(gx, tx.grad.numpy())
    assert (gx == 0).any()
