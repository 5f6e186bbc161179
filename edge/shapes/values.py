"""Rules of what computes on values and moves them: element by element, windows, means, products, cuts."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ..reference.pool import argmax_type
from ..reference.separable import COORDINATES
from .call import BATCH_AXIS, Call, Check, Shape
from .layers import window_outputs

Attributes = Callable[[Call], object]


def same(*attributes: Attributes) -> Check:
    """All operands have one shape, batched."""

    def check(c: Call) -> None:
        shape = c.shape(c.names[0])
        for name in c.names:
            c.expect(name, shape)
        for attribute in attributes:
            attribute(c)

    return check


def number(name: str) -> Attributes:
    """A numeric attribute."""
    return lambda c: c.number(name)


def slope(name: str) -> Attributes:
    """A numeric attribute that something is divided by."""
    return lambda c: c.number(name) or c.fail(f"attribute {name!r} is 0, expected another number")


def bound(name: str) -> Attributes:
    """A numeric attribute, or null."""
    return lambda c: c.op.attrs.get(name) is None or c.number(name)


def choice(name: str, *known: str) -> Attributes:
    """One of some words."""
    return lambda c: c.choice(name, *known)


def elementwise(c: Call) -> None:
    """Axes after the batch are equal, or 1 and repeated."""
    a, b = c.shape("a"), c.any_shape("b")
    c.shape("b", len(a), len(a))
    if any(left != right and 1 not in (left, right) for left, right in zip(a, b, strict=True)):
        c.expect("b", a)
    c.expect("y", tuple(left if right == 1 else right for left, right in zip(a, b, strict=True)))


def narrowed(c: Call) -> None:
    """Of gy's axes after the batch, gx and other have each whole or with length 1."""
    gy = c.shape("gy")
    for name in ("gx", "other"):
        if c.has(name):
            shape = c.shape(name, len(gy), len(gy))
            c.expect(name, tuple(1 if axis == 1 else length for axis, length in zip(shape, gy, strict=True)))


def mean(wide: str, narrow: str) -> Check:
    """`axes` of the wide side have length 1 in the narrow one (keepdims), or are left away."""

    def check(c: Call) -> None:
        shape, axes = c.shape(wide, 2), c.op.attrs.get("axes")
        count = len(axes) if isinstance(axes, list) else 1
        listed = c.integers("axes", max(count, 1), 1)
        if max(listed) >= len(shape) or len(set(listed)) < count:
            c.fail(f"attribute 'axes' is {listed}, expected different axes from 1 to {len(shape) - 1}")
        kept = c.choice("keepdims", 0, 1)
        lengths = ((axis in listed, length) for axis, length in enumerate(shape))
        c.expect(narrow, tuple(1 if gone else length for gone, length in lengths if kept or not gone))

    return check


def pool(wide: str, narrow: str) -> Check:
    """Windows over (N, C, L) or (N, C, H, W); the type of an argmax depends on their size."""

    def check(c: Call) -> None:
        shape = c.shape(wide, 3, 4)
        kernel = c.integers("kernel", len(shape) - 2, 1)
        out = window_outputs(c, shape[2:], kernel, [1] * len(kernel), whole=True)
        squeezed = [shape[:2]] if prod(out) == 1 else []  # a pool over the whole plane may leave no plane
        for name in (narrow, "argmax"):
            c.expect(name, (*shape[:2], *out), *squeezed)
        c.expect_dtype("argmax", argmax_type(prod(kernel)))

    return check


def average_pool(wide: str, narrow: str) -> Check:
    """The same, and whether padding counts."""

    def check(c: Call) -> None:
        pool(wide, narrow)(c)
        c.integer("count_include_pad", 0, 1)

    return check


def resize(before: str, after: str) -> Check:
    """(N, C, L) or (N, C, H, W) of any size."""

    def check(c: Call) -> None:
        shape = c.shape(before, 3, 4)
        c.expect(after, (*shape[:2], *c.shape(after, len(shape), len(shape))[2:]))
        c.choice("mode", "nearest", "linear")
        c.choice("coordinates", *COORDINATES)

    return check


def softmax(c: Call) -> None:
    """Over the last of two or more axes."""
    c.shape(c.names[0], 2)
    same()(c)


def matmul(c: Call) -> None:
    """Over the last two of three or more axes; the others are equal."""
    a, b = c.shape("a", 3), c.any_shape("b")
    c.shape("b", len(a), len(a))
    rows, depth = a[-2:] if not c.integer("transA", 0, 1) else a[:-3:-1]
    columns = b[-2] if c.integer("transB", 0, 1) else b[-1]
    c.expect("b", (*a[:-2], columns, depth) if c.integer("transB") else (*a[:-2], depth, columns))
    c.expect("y", (*a[:-2], rows, columns))


def reshape(c: Call) -> None:
    """As many elements of the same type, the batch on both sides or on none."""
    x, y = c.any_shape("x"), c.any_shape("y")
    c.expect_dtype("y", c.dtype("x"))
    if prod(x) != prod(y):
        c.expect("y", x)


def transpose(c: Call) -> None:
    """`perm` leaves the batch first."""
    x = c.shape("x")
    perm = c.integers("perm", len(x))
    if perm[0] != 0 or sorted(perm) != list(range(len(x))):
        c.fail(f"attribute 'perm' is {perm}, expected 0 and the other axes of {len(x)} in some order")
    c.expect("y", tuple(x[axis] for axis in perm))


def concat(c: Call) -> None:
    """Equal but for one axis after the batch."""
    *parts, y = c.names
    first = c.shape(parts[0], 2)
    axis, total = c.integer("axis", 1, len(first) - 1), 0
    for part in parts:
        shape = c.shape(part, len(first), len(first))
        c.expect(part, _with_axis(first, axis, shape[axis]))
        total += shape[axis]
    c.expect(y, _with_axis(first, axis, total))


def _with_axis(shape: Shape, axis: int, length: int) -> Shape:
    return (*shape[:axis], length, *shape[axis + 1 :])


def cut(c: Call) -> None:
    """`starts` to `ends` inside x, something of every axis."""
    x = c.shape("x", 2)
    starts, ends = c.integers("starts", len(x) - 1), c.integers("ends", len(x) - 1)
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    if min(lengths) < 1 or any(end > length for end, length in zip(ends, x[1:], strict=True)):
        c.fail(f"attributes 'starts', 'ends' are {starts}, {ends}, expected parts of {list(x[1:])}")
    _expect_long_axes(c, "y", (BATCH_AXIS, *lengths))


def pad(c: Call) -> None:
    """X between `before` and `after` is y."""
    y = c.shape("y", 2)
    before, after = c.integers("before", len(y) - 1), c.integers("after", len(y) - 1)
    inner = [length - first - last for length, first, last in zip(y[1:], before, after, strict=True)]
    if min(inner) < 1:
        c.fail(f"attributes 'before', 'after' are {before}, {after}, expected less than y, {list(y[1:])}")
    _expect_long_axes(c, "x", (BATCH_AXIS, *inner))
    c.number("value")


def _expect_long_axes(c: Call, name: str, shape: Shape) -> None:
    """The shape, where axes of length 1 may be missing."""
    if tuple(a for a in c.shape(name) if a != 1) != tuple(a for a in shape if a != 1):
        c.expect(name, shape)
