"""The attributes of an operation as the kernels read them: a row of 32-bit integers and floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..reference.kernel import Attrs, integer, integers, number

Row = list[int | float]


def _none(attrs: Attrs) -> Row:
    return []


def _planes(attrs: Attrs, name: str, ends: int, filler: int) -> Row:
    """A list with `ends` values per spatial axis, a 1-D one as that of a single row."""
    listed = attrs.get(name)
    rank = len(listed) // ends if isinstance(listed, list) else 2
    values = integers(attrs, name, rank * ends)
    if rank == 2:
        return [*values]
    return [value for end in range(ends) for value in (filler, values[end])]


def _conv(attrs: Attrs) -> Row:
    strides, pads = _planes(attrs, "strides", 1, 1), _planes(attrs, "pads", 2, 0)
    return [*strides, *pads, *_planes(attrs, "dilations", 1, 1), integer(attrs, "groups")]


ENCODERS: Mapping[str, Callable[[Attrs], Row]] = {
    "Conv": _conv,
    "ConvInputGrad": _conv,
    "ConvWeightGrad": _conv,
    "ConvWeightGradSparse": _conv,
    "Fc": _none,
    "FcInputGrad": _none,
    "FcWeightGrad": _none,
    "FcWeightGradSparse": _none,
}


def encoded(kind: str, attrs: Attrs) -> Row:
    """Return the attributes in the order of `src/abi.h`; raises ValueError where one is missing or malformed."""
    return ENCODERS[kind](attrs)
