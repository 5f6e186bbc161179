"""The attributes of an operation as the kernels read them: a row of 32-bit integers and floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..reference.kernel import Attrs, integer, integers, number

Row = list[int | float]
Encoder = Callable[[Attrs], Row]


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


def _pool(attrs: Attrs) -> Row:
    return [*_planes(attrs, "kernel", 1, 1), *_planes(attrs, "strides", 1, 1), *_planes(attrs, "pads", 2, 0)]


def _integers(*names: str) -> Encoder:
    return lambda attrs: [integer(attrs, name) for name in names]


def _numbers(*names: str) -> Encoder:
    return lambda attrs: [number(attrs, name) for name in names]


def _attention(attrs: Attrs) -> Row:
    cap = -1 if attrs.get("cap") is None else integer(attrs, "cap")
    return [number(attrs, "rho"), cap, int(attrs["normalize"] == "rms"), integer(attrs, "axis")]


def _cross_entropy(attrs: Attrs) -> Row:
    return [number(attrs, "label_smoothing") if "label_smoothing" in attrs else 0.0]


ENCODERS: Mapping[str, Encoder] = {
    "Conv": _conv,
    "ConvInputGrad": _conv,
    "ConvWeightGrad": _conv,
    "ConvWeightGradSparse": _conv,
    "Fc": _none,
    "FcInputGrad": _none,
    "FcWeightGrad": _none,
    "FcWeightGradSparse": _none,
    "GroupNorm": lambda attrs: [integer(attrs, "groups"), number(attrs, "eps")],
    "GroupNormInputGrad": _integers("groups"),
    "BiasGrad": _integers("axis"),
    "ScaleGrad": _integers("axis"),
    "ScaleGradSparse": lambda attrs: [1],
    "Relu": _none,
    "MaskGrad": _numbers("inside", "outside"),
    "MaxPool": _pool,
    "MaxPoolGrad": _pool,
    "Add": _none,
    "Sub": _none,
    "Mul": _none,
    "SgdUpdate": _integers("step", "layer_index"),
    "Zero": _none,
    "Reshape": _none,
    "ChannelAttention": _attention,
    "SelectChannels": _none,
    "SoftmaxCrossEntropy": _cross_entropy,
    "MeanSquaredError": _none,
}


def encoded(kind: str, attrs: Attrs) -> Row:
    """Return the attributes in the order of `src/abi.h`; raises ValueError where one is missing or malformed."""
    return ENCODERS[kind](attrs)
