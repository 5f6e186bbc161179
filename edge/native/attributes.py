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
    strides = attrs.get("strides")
    rank = 1 if isinstance(strides, list) and len(strides) == 1 else 2
    values = integers(attrs, name, rank * ends)
    if rank == 2:
        return [*values]
    return [value for end in range(ends) for value in (filler, values[end])]


def _conv(attrs: Attrs) -> Row:
    strides, pads = _planes(attrs, "strides", 1, 1), _planes(attrs, "pads", 2, 0)
    dilations, lean = _planes(attrs, "dilations", 1, 1), int(bool(attrs.get("lean")))
    return [*strides, *pads, *dilations, integer(attrs, "groups"), lean]


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


def _sgd_update(attrs: Attrs) -> Row:
    """The engine adds `step` when it runs the operation; until then it is 0."""
    return [integer(attrs, "step") if "step" in attrs else 0, integer(attrs, "layer_index")]


def _clip(attrs: Attrs) -> Row:
    row: Row = []
    for name in ("min", "max"):
        absent = attrs.get(name) is None
        row += [0, 0.0] if absent else [1, number(attrs, name)]
    return row


def _hard_sigmoid(attrs: Attrs) -> Row:
    alpha, beta = number(attrs, "alpha"), number(attrs, "beta")
    return [alpha, beta, -beta / alpha, (1 - beta) / alpha]


def _gelu(attrs: Attrs) -> Row:
    return [choice(attrs, "approximate", ("none", "tanh"))]


def _listed(attrs: Attrs, *names: str) -> Row:
    """Lists one after the other, all as long as the first."""
    first = attrs.get(names[0])
    count = len(first) if isinstance(first, list) else 0
    return [value for name in names for value in integers(attrs, name, count)]


def _mean(attrs: Attrs) -> Row:
    axes = _listed(attrs, "axes")
    return [len(axes), *axes]


def _resize(attrs: Attrs) -> Row:
    places = ("asymmetric", "half_pixel", "align_corners")
    return [choice(attrs, "mode", ("nearest", "linear")), choice(attrs, "coordinates", places)]


def choice(attrs: Attrs, name: str, known: tuple[str, ...]) -> int:
    """Return the position of a text attribute; raises ValueError where it is none of the known ones."""
    value = attrs.get(name)
    if value not in known:
        raise ValueError(f"attribute {name!r} must be one of {known}, got {value!r}")
    return known.index(str(value))


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
    "SgdUpdate": _sgd_update,
    "Zero": _none,
    "Reshape": _none,
    "ChannelAttention": _attention,
    "SelectChannels": _none,
    "Quantise": _none,
    "Dequantise": _none,
    "SoftmaxCrossEntropy": _cross_entropy,
    "MeanSquaredError": _none,
    "CategoricalPolicyGradient": _none,
    "GaussianPolicyGradient": _none,
    "GaussianLogStdGrad": _none,
    "Clip": _clip,
    "LeakyRelu": _numbers("alpha"),
    "HardSigmoid": _hard_sigmoid,
    "Scale": _numbers("factor", "offset"),
    "SumTo": _none,
    "MulGrad": _none,
    "Mean": _mean,
    "MeanGrad": _mean,
    "AveragePool": lambda attrs: [*_pool(attrs), integer(attrs, "count_include_pad")],
    "AveragePoolGrad": lambda attrs: [*_pool(attrs), integer(attrs, "count_include_pad")],
    "Resize": _resize,
    "ResizeGrad": _resize,
    "Transpose": lambda attrs: _listed(attrs, "perm"),
    "Concat": _integers("axis"),
    "Slice": lambda attrs: _listed(attrs, "starts", "ends"),
    "Pad": lambda attrs: [number(attrs, "value"), *_listed(attrs, "before", "after")],
    "MatMul": _integers("transA", "transB"),
    "Elu": _numbers("alpha"),
    "EluGrad": _numbers("alpha"),
    "Sigmoid": _none,
    "SigmoidGrad": _none,
    "Tanh": _none,
    "TanhGrad": _none,
    "Silu": _none,
    "SiluGrad": _none,
    "HardSwish": _none,
    "HardSwishGrad": _none,
    "Gelu": _gelu,
    "GeluGrad": _gelu,
    "PRelu": _none,
    "PReluInputGrad": _none,
    "PReluSlopeGrad": _none,
    "Affine": _integers("axis"),
    "AffineInputGrad": _integers("axis"),
    "Expand": _none,
    "Softmax": _none,
    "SoftmaxGrad": _none,
    "LayerNorm": lambda attrs: [integer(attrs, "dims"), number(attrs, "eps")],
    "LayerNormInputGrad": _integers("dims"),
    "Mahalanobis": _none,
}


def encoded(kind: str, attrs: Attrs) -> Row:
    """Return the attributes in the order of `src/abi.h`; raises ValueError where one is missing or malformed."""
    return ENCODERS[kind](attrs)
