"""Moving, cutting and joining values, and products of matrices, against plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.lower.work import step_macs
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import garbage, run

few = settings(max_examples=40, deadline=None, derandomize=True)
SHAPES = st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple)


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape)


@few
@given(SHAPES, st.data())
def test_transposing_there_and_back_changes_nothing(shape: tuple[int, ...], data: st.DataObject) -> None:
    perm = [0, *data.draw(st.permutations(range(1, len(shape))))]
    x = normal(*shape)
    y = run("Transpose", [x], [garbage(tuple(shape[axis] for axis in perm))], perm=perm)
    np.testing.assert_array_equal(y, np.transpose(x, perm))
    back = run("Transpose", [y], [garbage(shape)], perm=np.argsort(perm).tolist())
    np.testing.assert_array_equal(back, x)


def test_the_batch_axis_cannot_be_moved() -> None:
    with pytest.raises(ValueError, match="'perm' must leave the batch axis first"):
        run("Transpose", [normal(2, 3)], [garbage((3, 2))], perm=[1, 0])


@few
@given(SHAPES, st.data())
def test_what_was_joined_can_be_cut_apart(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(1, len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    parts = [normal(*shape[:axis], length, *shape[axis + 1 :]) for length in lengths]
    whole = np.concatenate(parts, axis)
    np.testing.assert_array_equal(run("Concat", parts, [garbage(whole.shape)], axis=axis), whole)
    start = 0
    for part in parts:
        starts, ends = [0] * (len(shape) - 1), list(whole.shape[1:])
        starts[axis - 1], ends[axis - 1] = start, start + part.shape[axis]
        start = ends[axis - 1]
        np.testing.assert_array_equal(
            run("Slice", [whole], [garbage(part.shape)], starts=starts, ends=ends), part
        )


@few
@given(SHAPES, st.data())
def test_padding_surrounds_with_a_value_and_cutting_undoes_it(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    widths = data.draw(
        st.lists(st.tuples(*[st.integers(0, 3)] * 2), min_size=len(shape) - 1, max_size=len(shape) - 1)
    )
    x = normal(*shape)
    expected = np.pad(x, [(0, 0), *widths], constant_values=-1.5)
    before, after = [b for b, _ in widths], [a for _, a in widths]
    y = run("Pad", [x], [garbage(expected.shape)], before=before, after=after, value=-1.5)
    np.testing.assert_array_equal(y, expected)
    ends = [b + size for b, size in zip(before, shape[1:], strict=True)]
    np.testing.assert_array_equal(run("Slice", [y], [garbage(shape)], starts=before, ends=ends), x)


def test_an_axis_of_one_element_may_be_left_away() -> None:
    x = normal(2, 5, 3)
    part = run("Slice", [x], [garbage((2, 3))], starts=[4, 0], ends=[5, 3])
    np.testing.assert_array_equal(part, x[:, 4])
    back = run("Pad", [part], [garbage((2, 5, 3))], before=[4, 0], after=[0, 0], value=0)
    assert not back[:, :4].any()
    np.testing.assert_array_equal(back[:, 4], part)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_matrices_are_multiplied_one_by_one(
    lead: tuple[int, ...], trans_a: int, trans_b: int, dtype: type
) -> None:
    a, b = normal(2, *lead, 5, 7).astype(dtype), normal(2, *lead, 7, 3).astype(dtype)
    expected = np.einsum("...ij,...jk->...ik", a.astype(np.float64), b.astype(np.float64))
    given_a, given_b = (
        np.ascontiguousarray(value.swapaxes(-1, -2)) if swap else value
        for value, swap in ((a, trans_a), (b, trans_b))
    )
    y = run("MatMul", [given_a, given_b], [garbage(expected.shape, dtype)], transA=trans_a, transB=trans_b)
    np.testing.assert_allclose(y, expected, atol=np.finfo(dtype).eps * 50)


@pytest.mark.parametrize("a", [(1, 2, 4, 5, 7), (1, 2, 4, 7, 5)])
@pytest.mark.parametrize("b", [(1, 2, 4, 7, 3), (1, 2, 4, 3, 7)])
def test_products_of_matrices_are_counted(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    assert step_macs("MatMul", [a, b], [(1, 2, 4, 5, 3)]) == 2 * 4 * 5 * 7 * 3
