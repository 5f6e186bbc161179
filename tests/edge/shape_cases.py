"""An operation of every kind that is right, by hand: its operands and attributes; shapes where one fault shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edge_adapt.edge.program import BATCH, Attr, Op, Tensor

CONV = {"strides": [2, 1], "pads": [1, 0, 1, 2], "dilations": [1, 2], "groups": 2}
SIGNAL = {"strides": [2], "pads": [1, 0], "dilations": [1], "groups": 1}
POOL = {"kernel": [3, 2], "strides": [3, 2], "pads": [1, 0, 1, 0]}
AVERAGE = {**POOL, "count_include_pad": 0}
RESIZE = {"mode": "linear", "coordinates": "half_pixel"}
ATTENTION = {"rho": 0.3, "cap": 2, "normalize": "rms", "axis": 1}
FROM_X, FROM_Y = ("Silu", "HardSwish"), ("Sigmoid", "Tanh")
MAP = "N,4,6,5"


@dataclass(frozen=True)
class Case:
    """An operation and its tensors by name."""

    op: Op
    tensors: Mapping[str, Tensor]

    def with_tensor(self, name: str, **changes: Any) -> Case:
        return replace(self, tensors={**self.tensors, name: replace(self.tensors[name], **changes)})

    def with_attrs(self, attrs: Mapping[str, Attr]) -> Case:
        return replace(self, op=replace(self.op, attrs=attrs))


def case(kind: str, text: str, **attrs: Any) -> Case:
    """Read "x=N,4,6,5 w=8,2 -> y=N,8 mask=N,8/bit1"; no shape is a single number."""
    tensors: dict[str, Tensor] = {}
    sides = [side.split() for side in text.split("->")]
    for name, _, rest in (word.partition("=") for side in sides for word in side):
        shape, _, dtype = rest.partition("/")
        axes = tuple(axis if axis == BATCH else int(axis) for axis in filter(None, shape.split(",")))
        tensors[name] = Tensor(name, axes, dtype or "float32")
    inputs, outputs = (tuple(word.partition("=")[0] for word in side) for side in sides)
    return Case(Op(kind, inputs, outputs, "layer", attrs), tensors)


def _masked(kind: str, **attrs: Any) -> Case:
    return case(kind, f"x={MAP} -> y={MAP} mask={MAP}/bit1", **attrs)


def _smooth(kind: str, grad: str, **attrs: Any) -> list[Case]:
    return [
        case(kind, f"x={MAP} -> y={MAP}", **attrs),
        case(f"{kind}Grad", f"gy={MAP} {grad}={MAP} -> gx={MAP}", **attrs),
    ]


LAYERS = [
    case("Conv", "x=N,4,9,8 w=6,2,3,3 b=6 -> y=N,6,5,6", **CONV),
    case("ConvInputGrad", "gy=N,6,5,6 w=6,2,3,3 -> gx=N,4,9,8", **CONV),
    case("ConvWeightGrad", "x=N,4,9,8 gy=N,6,5,6 s=N fw=N,4 bw=N,6 -> gw=6,2,3,3", **CONV),
    case("ConvWeightGradSparse", "k=N,3,9,8 i=N,3/int32 gy=N,6,5,6 s=N bw=N,6 -> gw=6,2,3,3", **CONV),
    case("Fc", "x=N,5,4 w=6,4 b=6 -> y=N,5,6"),
    case("FcInputGrad", "gy=N,5,6 w=6,4 -> gx=N,5,4"),
    case("FcWeightGrad", "x=N,5,4 gy=N,5,6 s=N fw=N,4 bw=N,6 -> gw=6,4"),
    case("FcWeightGradSparse", "k=N,3 i=N,3/int32 gy=N,6 s=N bw=N,6 -> gw=6,4"),
    case("GroupNorm", f"x={MAP} w=4 b=4 -> y={MAP} h={MAP} i=N,2", groups=2, eps=1e-5),
    case("GroupNormInputGrad", f"gy={MAP} h={MAP} i=N,2 w=4 -> gx={MAP}", groups=2),
    case("LayerNorm", "x=N,5,6,7 w=6,7 b=6,7 -> y=N,5,6,7 h=N,5,6,7 i=N,5", dims=2, eps=1e-5),
    case("LayerNormInputGrad", "gy=N,5,6,7 h=N,5,6,7 i=N,5 w=6,7 -> gx=N,5,6,7", dims=2),
    case("Affine", "x=N,5,7 w=5,7 b=5,7 -> y=N,5,7", axis=-1),
    case("AffineInputGrad", f"gy={MAP} w=4 -> gx={MAP}", axis=1),
    case("Expand", "p=5,7 -> y=N,5,7"),
    case("BiasGrad", f"gy={MAP} s=N bw=N,4 -> gb=4", axis=1),
    case("ScaleGrad", f"gy={MAP} x={MAP} s=N fw=N,4 bw=N,4 -> gs=4", axis=1),
    case("ScaleGradSparse", f"k=N,3,6,5 i=N,3/int32 gy={MAP} s=N bw=N,4 -> gs=4"),
    case("PRelu", f"x={MAP} w=4 -> y={MAP}"),
    case("PReluInputGrad", f"gy={MAP} x={MAP} w=4 -> gx={MAP}"),
    case("PReluSlopeGrad", f"gy={MAP} x={MAP} s=N -> gs=4"),
    case("Mahalanobis", "x=N,4 m=6,4 f=6,4,4 -> y=N,6"),
    case("SgdUpdate", "w=6,4 gw=6,4 a=3,5 -> u=6,4", layer_index=4),
]
VALUES = [
    _masked("Relu"),
    _masked("Clip", min=None, max=6.0),
    _masked("LeakyRelu", alpha=0.1),
    _masked("HardSigmoid", alpha=0.2, beta=0.5),
    case("MaskGrad", f"gy={MAP} mask={MAP}/bit1 -> gx={MAP}", inside=1.0, outside=0.0),
    *_smooth("Elu", "y", alpha=1.0),
    *_smooth("Gelu", "x", approximate="tanh"),
    *(one for kind in FROM_X for one in _smooth(kind, "x")),
    *(one for kind in FROM_Y for one in _smooth(kind, "y")),
    *_smooth("Softmax", "y"),
    *(case(kind, f"a={MAP} b=N,4,1,5 -> y={MAP}") for kind in ("Add", "Sub", "Mul")),
    case("Scale", f"x={MAP} -> y={MAP}", factor=2.0, offset=0.5),
    case("SumTo", f"gy={MAP} -> gx=N,4,1,5"),
    case("MulGrad", f"gy={MAP} other=N,1,6,5 -> gx=N,4,1,5"),
    case("Mean", f"x={MAP} -> y=N,4", axes=[2, 3], keepdims=0),
    case("MeanGrad", f"gy=N,4,1,1 -> gx={MAP}", axes=[2, 3], keepdims=1),
    case("MaxPool", f"x={MAP} -> y=N,4,2,2 argmax=N,4,2,2/bit4", **POOL),
    case("MaxPoolGrad", f"gy=N,4,2,2 argmax=N,4,2,2/bit4 -> gx={MAP}", **POOL),
    case("AveragePool", f"x={MAP} -> y=N,4,2,2", **AVERAGE),
    case("AveragePoolGrad", f"gy=N,4,2,2 -> gx={MAP}", **AVERAGE),
    case("Resize", f"x=N,4,3,2 -> y={MAP}", **RESIZE),
    case("ResizeGrad", f"gy={MAP} -> gx=N,4,3,2", **RESIZE),
    case("MatMul", "a=N,2,6,5 b=N,2,7,6 -> y=N,2,5,7", transA=1, transB=1),
    case("Reshape", f"x={MAP} -> y=N,120"),
    case("Transpose", f"x={MAP} -> y=N,6,5,4", perm=[0, 2, 3, 1]),
    case("Concat", f"a={MAP} b=N,4,2,5 -> y=N,4,8,5", axis=2),
    case("Slice", f"x={MAP} -> y=N,4,2,3", starts=[0, 4, 1], ends=[4, 6, 4]),
    case("Pad", f"x=N,4,2,3 -> y={MAP}", before=[0, 3, 1], after=[0, 1, 1], value=-1.0),
]
ANSWERS = [
    case(
        "SoftmaxCrossEntropy", "x=N,4 labels=N/int64 s=N m=4 -> loss=1 g=N,4", label_smoothing=0.1,
    ),
    case("MeanSquaredError", "x=N,4,5 t=N,4,5 s=N -> loss= g=N,4,5"),
    case("CategoricalPolicyGradient", "x=N,5,4 a=N,5/int64 r=N,5 s=N -> loss=1 g=N,5,4"),
    case("GaussianPolicyGradient", "x=N,5,4 d=4 a=N,5,4 r=N,5 s=N -> loss=1 g=N,5,4"),
    case("GaussianLogStdGrad", "x=N,5,4 d=4 a=N,5,4 r=N,5 s=N -> gs=4"),
    case("ChannelAttention", f"x={MAP} w1=7,4 b1=7 w2=4,7 b2=4 keep=N,4 -> y=N,4", **ATTENTION),
    case("SelectChannels", f"x={MAP} y=N,4 -> k=N,3,6,5 i=N,3/int32"),
    case("Quantise", f"x={MAP} -> q={MAP}/uint8 r=N,4,2"),
    case("Dequantise", f"q={MAP}/uint8 r=N,4,2 -> x={MAP}"),
    case("Zero", "-> y=4,5"),
]  # fmt: skip
CASES = {one.op.kind: one for one in (*LAYERS, *VALUES, *ANSWERS)}
MORE = [
    case("Quantise", f"x={MAP} -> q={MAP}/uint16 r=N,4,2"),
    case("Dequantise", f"q={MAP}/uint16 r=N,4,2 -> x={MAP}"),
    case("Conv", "x=N,4,9 w=6,4,3 -> y=N,6,4", **SIGNAL),
    case("Conv", "x=N,4,9 w=6,4,3 b=6 -> y=N,6,4", **SIGNAL),
    case("Affine", f"x={MAP} w=1 -> y={MAP}", axis=-1),
    case("Affine", "x=N,5,7 w=7 b=7 -> y=N,5,7", axis=-1),
    case("Affine", "x=N,5,7 w=1,5,7 -> y=N,5,7", axis=-1),
    case("Expand", "p=1,7 -> y=N,5,7"),
    case("BiasGrad", "gy=N,5,7 s=N -> gb=1,7", axis=-1),
    case("BiasGrad", "gy=N,5,7 s=N bw=N,7 -> gb=7", axis=-1),
    case("ScaleGrad", f"gy={MAP} x={MAP} s=N -> gs=1", axis=-1),
    case("PRelu", f"x={MAP} w=1 -> y={MAP}"),
    case("MaxPool", "x=N,4,9 -> y=N,4,3 argmax=N,4,3/bit2", kernel=[3], strides=[3], pads=[0, 0]),
    case("Slice", "x=N,9,4 -> y=N,4", starts=[3, 0], ends=[4, 4]),
    case("Pad", "x=N,4 -> y=N,9,4", before=[3, 0], after=[5, 0], value=0.0),
    case("Reshape", "x=4,5 -> y=20"),
    case("Reshape", "x=N,8/bit1 -> y=N,2,4/bit1"),
    case("Zero", "-> y=N,5"),
    case("ChannelAttention", "x=N,9,4 w1=7,4 b1=7 w2=4,7 b2=4 -> y=N,4", **{**ATTENTION, "axis": -1}),
    case("MatMul", "a=N,5,6 b=N,6,7 -> y=N,5,7", transA=0, transB=0),
]
