"""Native kernels that sum, move, average, resize or multiply, against the reference kernels over random shapes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import garbage
from .native_calls import check, normal, variants

few = settings(max_examples=40, deadline=None, derandomize=True)
lengths = st.lists(st.integers(1, 7), min_size=1, max_size=4)
flag = st.booleans()


@variants()
@few
@given(batch=st.integers(1, 3), space=lengths, data=st.data())
def test_sums_and_means_over_any_axes(variant: str, batch: int, space: list[int], data: Any) -> None:
    summed = [data.draw(flag) for _ in space]
    wide, narrow = (batch, *space), (batch, *(1 if s else n for n, s in zip(space, summed, strict=True)))
    other = tuple(n if data.draw(flag) else 1 for n in space)
    check(variant, "SumTo", [normal(0, *wide)], [garbage(narrow)], {}, 1e-5)
    check(variant, "MulGrad", [normal(0, *wide), normal(1, batch, *other)], [garbage(narrow)], {}, 1e-5)
    axes = [axis for axis, on in enumerate(summed, start=1) if on]
    if not axes:
        return
    for keepdims in (0, 1):
        shape = narrow if keepdims else tuple(n for axis, n in enumerate(wide) if axis not in axes)
        attrs = {"axes": axes, "keepdims": keepdims}
        check(variant, "Mean", [normal(2, *wide)], [garbage(shape)], attrs, 1e-5)
        check(variant, "MeanGrad", [normal(3, *shape)], [garbage(wide)], attrs, 1e-5)


@variants()
@few
@given(batch=st.integers(1, 3), space=lengths, data=st.data())
def test_moves(variant: str, batch: int, space: list[int], data: Any) -> None:
    x = normal(0, batch, *space)
    perm = [0, *data.draw(st.permutations(range(1, x.ndim)))]
    y = tuple(x.shape[axis] for axis in perm)
    check(variant, "Transpose", [x], [garbage(y)], {"perm": perm}, 1e-12)
    starts = [data.draw(st.integers(0, n - 1)) for n in space]
    ends = [data.draw(st.integers(start + 1, n)) for start, n in zip(starts, space, strict=True)]
    part = (batch, *(end - start for start, end in zip(starts, ends, strict=True)))
    check(variant, "Slice", [x], [garbage(part)], {"starts": starts, "ends": ends}, 1e-12)
    before, after = ([data.draw(st.integers(0, 3)) for _ in space] for _ in range(2))
    padded = (batch, *(n + b + a for n, b, a in zip(space, before, after, strict=True)))
    check(variant, "Pad", [x], [garbage(padded)], {"before": before, "after": after, "value": 0.25}, 1e-12)
    axis = data.draw(st.integers(1, x.ndim - 1))
    parts = [
        normal(i, *x.shape[:axis], i + 1, *x.shape[axis + 1 :]) for i in range(data.draw(st.integers(1, 11)))
    ]
    joined = (*x.shape[:axis], sum(p.shape[axis] for p in parts), *x.shape[axis + 1 :])
    check(variant, "Concat", parts, [garbage(joined)], {"axis": axis}, 1e-12)


@variants()
@few
@given(
    lead=st.lists(st.integers(1, 4), min_size=1, max_size=2), rows=st.integers(1, 20),
    columns=st.integers(1, 70), depth=st.integers(1, 40), trans_a=flag, trans_b=flag, threads=st.integers(1, 2),
)  # fmt: skip
def test_products_of_activations(
    variant: str, lead: list[int], rows: int, columns: int, depth: int, trans_a: bool, trans_b: bool,
    threads: int,
) -> None:  # fmt: skip
    a = normal(0, *lead, *((depth, rows) if trans_a else (rows, depth)))
    b = normal(1, *lead, *((columns, depth) if trans_b else (depth, columns)))
    attrs = {"transA": int(trans_a), "transB": int(trans_b)}
    check(variant, "MatMul", [a, b], [garbage((*lead, rows, columns))], attrs, threads=threads)


@variants()
@few
@given(
    size=st.lists(st.integers(3, 14), min_size=1, max_size=2), kernel=st.integers(1, 3),
    stride=st.integers(1, 3), pads=flag, counted=st.integers(0, 1),
)  # fmt: skip
def test_average_pool(
    variant: str, size: list[int], kernel: int, stride: int, pads: bool, counted: int
) -> None:
    rank = len(size)
    pad = kernel // 2 if pads else 0
    attrs = {
        "kernel": [kernel] * rank, "strides": [stride] * rank, "pads": [pad] * 2 * rank,
        "count_include_pad": counted,
    }  # fmt: skip
    out = [(n + 2 * pad - kernel) // stride + 1 for n in size]
    check(variant, "AveragePool", [normal(0, 2, 3, *size)], [garbage((2, 3, *out))], attrs)
    check(variant, "AveragePoolGrad", [normal(0, 2, 3, *out)], [garbage((2, 3, *size))], attrs)


@variants()
@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("coordinates", ["asymmetric", "half_pixel", "align_corners"])
@pytest.mark.parametrize(("size", "out"), [((4, 5), (8, 13)), ((9, 1), (4, 3)), ((7,), (3,)), ((5,), (5,))])
def test_resize(
    variant: str, mode: str, coordinates: str, size: tuple[int, ...], out: tuple[int, ...]
) -> None:
    attrs = {"mode": mode, "coordinates": coordinates}
    check(variant, "Resize", [normal(0, 2, 3, *size)], [garbage((2, 3, *out))], attrs)
    check(variant, "ResizeGrad", [normal(0, 2, 3, *out)], [garbage((2, 3, *size))], attrs)
