"""The rule of every operation: its signature, and how its shapes and attributes depend on each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import answers, layers, values
from .call import Check, Signature
from .values import bound, choice, number, same, slope


@dataclass(frozen=True)
class Rule:
    """What operands an operation takes, and the check of their shapes and of its attributes."""

    signature: Signature
    check: Check


def _rule(signature: str, check: Check) -> Rule:
    return Rule(Signature.read(signature), check)


_MASKED = "x -> [y] [mask:bit1]"
_LOSS = "-> [loss] [gradient]"
_GAUSSIAN = "mean log_std actions advantages sample_weight"
_SPARSE = "kept index:int32 gy sample_weight [bw]"

RULES: Mapping[str, Rule] = {
    "Conv": _rule("x w [b] -> y", layers.conv_with_bias),
    "ConvInputGrad": _rule("gy w -> gx", layers.conv("gx", "w", "gy")),
    "ConvWeightGrad": _rule("x gy sample_weight [fw] [bw] -> gw", layers.conv_weight_grad),
    "ConvWeightGradSparse": _rule(f"{_SPARSE} -> gw", layers.conv_weight_grad_sparse),
    "Fc": _rule("x w [b] -> y", layers.fc("x", "w", "y")),
    "FcInputGrad": _rule("gy w -> gx", layers.fc("gx", "w", "gy")),
    "FcWeightGrad": _rule("x gy sample_weight [fw] [bw] -> gw", layers.fc_weight_grad),
    "FcWeightGradSparse": _rule(f"{_SPARSE} -> gw", layers.fc_weight_grad_sparse),
    "GroupNorm": _rule("x scale bias -> [y] [x_hat] [inv_std]", layers.group_norm("x")),
    "GroupNormInputGrad": _rule("gy x_hat inv_std scale -> gx", layers.group_norm("gx")),
    "LayerNorm": _rule("x scale bias -> [y] [x_hat] [inv_std]", layers.layer_norm("x")),
    "LayerNormInputGrad": _rule("gy x_hat inv_std scale -> gx", layers.layer_norm("gx")),
    "Affine": _rule("x [scale] [bias] -> y", layers.affine),
    "AffineInputGrad": _rule("gy scale -> gx", layers.affine),
    "Expand": _rule("p -> y", layers.expand),
    "BiasGrad": _rule("gy sample_weight [bw] -> gb", layers.affine_grad("gb")),
    "ScaleGrad": _rule("gy x sample_weight [fw] [bw] -> gs", layers.affine_grad("gs")),
    "ScaleGradSparse": _rule(f"{_SPARSE} -> gs", layers.scale_grad_sparse),
    "PRelu": _rule("x slope -> y", layers.prelu("slope")),
    "PReluInputGrad": _rule("gy x slope -> gx", layers.prelu("slope")),
    "PReluSlopeGrad": _rule("gy x sample_weight -> gs", layers.prelu("gs")),
    "SgdUpdate": _rule("w gw alpha -> w'", layers.sgd_update),
    "Mahalanobis": _rule("x means factors -> y", layers.mahalanobis),
    "Relu": _rule(_MASKED, same()),
    "Clip": _rule(_MASKED, same(bound("min"), bound("max"))),
    "LeakyRelu": _rule(_MASKED, same(number("alpha"))),
    "HardSigmoid": _rule(_MASKED, same(slope("alpha"), number("beta"))),
    "MaskGrad": _rule("gy mask:bit1 -> gx", same(number("inside"), number("outside"))),
    "Elu": _rule("x -> y", same(number("alpha"))),
    "EluGrad": _rule("gy y -> gx", same(number("alpha"))),
    "Gelu": _rule("x -> y", same(choice("approximate", "none", "tanh"))),
    "GeluGrad": _rule("gy x -> gx", same(choice("approximate", "none", "tanh"))),
    **{kind: _rule("x -> y", same()) for kind in ("Sigmoid", "Tanh", "Silu", "HardSwish")},
    **{kind: _rule("gy y -> gx", same()) for kind in ("SigmoidGrad", "TanhGrad")},
    **{kind: _rule("gy x -> gx", same()) for kind in ("SiluGrad", "HardSwishGrad")},
    "Softmax": _rule("x -> y", values.softmax),
    "SoftmaxGrad": _rule("gy y -> gx", values.softmax),
    **{kind: _rule("a b -> y", values.elementwise) for kind in ("Add", "Sub", "Mul")},
    "Scale": _rule("x -> y", same(number("factor"), number("offset"))),
    "SumTo": _rule("gy -> gx", values.narrowed),
    "MulGrad": _rule("gy other -> gx", values.narrowed),
    "Mean": _rule("x -> y", values.mean("x", "y")),
    "MeanGrad": _rule("gy -> gx", values.mean("gx", "gy")),
    "MaxPool": _rule("x -> [y] [argmax:*]", values.pool("x", "y")),
    "MaxPoolGrad": _rule("gy argmax:* -> gx", values.pool("gx", "gy")),
    "AveragePool": _rule("x -> y", values.average_pool("x", "y")),
    "AveragePoolGrad": _rule("gy -> gx", values.average_pool("gx", "gy")),
    "Resize": _rule("x -> y", values.resize("x", "y")),
    "ResizeGrad": _rule("gy -> gx", values.resize("gy", "gx")),
    "MatMul": _rule("a b -> y", values.matmul),
    "Reshape": _rule("x:* -> y:*", values.reshape),
    "Transpose": _rule("x -> y", values.transpose),
    "Concat": _rule("part... -> y", values.concat),
    "Slice": _rule("x -> y", values.cut),
    "Pad": _rule("x -> y", values.pad),
    "SoftmaxCrossEntropy": _rule(
        f"logits labels:int64 sample_weight class_mask {_LOSS}", answers.cross_entropy
    ),
    "MeanSquaredError": _rule(f"outputs targets sample_weight {_LOSS}", answers.squared_error),
    "CategoricalPolicyGradient": _rule(
        f"logits actions:int64 advantages sample_weight {_LOSS}", answers.categorical
    ),
    "GaussianPolicyGradient": _rule(f"{_GAUSSIAN} {_LOSS}", answers.gaussian),
    "GaussianLogStdGrad": _rule(f"{_GAUSSIAN} -> gs", answers.gaussian),
    "ChannelAttention": _rule("x w1 b1 w2 b2 [keep] -> gamma", answers.attention),
    "SelectChannels": _rule("x gamma -> kept index:int32", answers.select_channels),
    "Quantise": _rule("x -> levels:* range", answers.quantise),
    "Dequantise": _rule("levels:* range -> x", answers.quantise),
    "Zero": _rule("-> y", answers.anything),
}
