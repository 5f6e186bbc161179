"""Which operations can run block of channels by block of channels, and on what.

The channels are axis 1 of a batched tensor and axis 0 of a parameter or its gradient. A new operation is one line
of `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd, prod
from typing import TypeAlias

from ..program import DTYPE_BITS, Attr, Tensor
from .table import Step

Tensors: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rule:
    """How an operation is cut.

    Attributes:
        whole: positions of inputs of which every block sees all channels; all other values are cut.
        groups: the attribute `groups` counts groups of channels, each block has its share of them.
    """

    whole: frozenset[int] = frozenset()
    groups: bool = False


Find: TypeAlias = Callable[[Step, Tensors], Rule | None]
CUT = Rule()


def rule_of(step: Step, tensors: Tensors) -> Rule | None:
    """Return how a step is cut, None where it cannot be."""
    found = RULES.get(step.kind)
    rule = found(step, tensors) if callable(found) else found
    return rule if rule is None or _consistent(step, rule) else None


def roles(step: Step, rule: Rule) -> dict[str, bool]:
    """Return whether each value of a step is cut."""
    cut = {name: position not in rule.whole for position, name in enumerate(step.inputs) if name}
    return cut | {name: True for name in step.outputs if name}


def divisor(step: Step, rule: Rule, tensors: Tensors) -> int:
    """Return the number whose divisors are the possible numbers of blocks."""
    common = int(_attribute(step, "groups")) if rule.groups else 0
    for name, cut in roles(step, rule).items():
        if cut:
            common = gcd(common, _channel_divisor(tensors[name]))
    return common


def slice_attrs(step: Step, rule: Rule, blocks: int) -> Mapping[str, Attr]:
    """Return the attributes of one block."""
    return {**step.attrs, "groups": _attribute(step, "groups") // blocks} if rule.groups else step.attrs


def slice_shape(tensor: Tensor, blocks: int) -> tuple[int, ...]:
    """Return the shape of one sample's slice; packed types are (1, bytes)."""
    if DTYPE_BITS[tensor.dtype] < 8:
        return (1, tensor.size_bytes(1) // blocks)
    shape = tensor.concrete(1)
    axis = int(tensor.batched)
    return (*shape[:axis], shape[axis] // blocks, *shape[axis + 1 :]) if blocks > 1 else shape


def _consistent(step: Step, rule: Rule) -> bool:
    """Whether no value is cut in one place and whole in another."""
    whole = {step.inputs[position] for position in rule.whole if position < len(step.inputs)} - {""}
    cut = {name for position, name in enumerate(step.inputs) if position not in rule.whole}
    return whole.isdisjoint(cut) and whole.isdisjoint(step.outputs)


def _channel_divisor(tensor: Tensor) -> int:
    """Return the channels, or, of a packed tensor, their common divisor with its bytes."""
    shape = tensor.concrete(1)[int(tensor.batched) :]
    bits = DTYPE_BITS[tensor.dtype]
    if not shape or bits >= 8:
        return shape[0] if shape else 1
    whole_bytes, rest = divmod(prod(shape) * bits, 8)
    return 1 if rest else gcd(shape[0], whole_bytes)


def _attribute(step: Step, name: str) -> int:
    value = step.attrs[name]
    assert isinstance(value, int)
    return value


def _whole(*positions: int) -> Rule:
    return Rule(frozenset(positions))


def _conv(dense: Rule, grouped: Rule) -> Find:
    """Groups make a convolution local: the outputs of a group read its own inputs."""
    return lambda step, tensors: dense if step.attrs["groups"] == 1 else grouped


def _only_dense(*whole: int) -> Find:
    return lambda step, tensors: _whole(*whole) if step.attrs["groups"] == 1 else None


def _only_grouped(step: Step, tensors: Tensors) -> Rule | None:
    """Blocks of the inputs of a dense convolution would need columns of its weight, which are not contiguous."""
    return None if step.attrs["groups"] == 1 else Rule(groups=True)


def _along_channels(*whole: int) -> Find:
    """Per-channel parameters along axis 1."""
    return lambda step, tensors: _whole(*whole) if step.attrs["axis"] == 1 else None


def _elementwise(step: Step, tensors: Tensors) -> Rule | None:
    """Operands are repeated where they have length 1; what comes out must have all channels."""
    names = [*step.inputs, *step.outputs]
    if not all(tensors[name].batched and len(tensors[name].shape) > 1 for name in names):
        return None
    channels = max(int(tensors[name].shape[1]) for name in names)
    if any(tensors[name].shape[1] != channels for name in step.outputs):
        return None
    return _whole(*(i for i, name in enumerate(step.inputs) if tensors[name].shape[1] != channels))


def _over_space(step: Step, tensors: Tensors) -> Rule | None:
    axes = step.attrs["axes"]
    return None if not isinstance(axes, list) or 1 in axes else CUT


def _slope(position: int) -> Find:
    """A slope for every channel is cut, one for all is not."""
    return lambda step, tensors: CUT if _is_per_channel(step, position, tensors) else _whole(position)


def _is_per_channel(step: Step, position: int, tensors: Tensors) -> bool:
    return tensors[step.inputs[position]].shape[0] == tensors[step.inputs[0]].shape[1]


def _slope_grad(step: Step, tensors: Tensors) -> Rule | None:
    return _whole(2) if tensors[step.outputs[0]].shape[0] == tensors[step.inputs[0]].shape[1] else None


RULES: Mapping[str, Rule | Find] = {
    "Conv": _conv(_whole(0), Rule(groups=True)),
    "ConvInputGrad": _only_grouped,
    "ConvWeightGrad": _conv(_whole(0, 2, 3), Rule(frozenset({2}), groups=True)),
    "ConvWeightGradSparse": _only_dense(0, 1, 3),
    "GroupNorm": Rule(groups=True),
    "GroupNormInputGrad": Rule(groups=True),
    "Affine": _along_channels(),
    "AffineInputGrad": _along_channels(),
    "BiasGrad": _along_channels(1),
    "ScaleGrad": _along_channels(2),
    "PRelu": _slope(1),
    "PReluInputGrad": _slope(2),
    "PReluSlopeGrad": _slope_grad,
    "Mean": _over_space,
    "MeanGrad": _over_space,
    "SgdUpdate": _whole(2),
    **dict.fromkeys(("Add", "Sub", "Mul", "MulGrad", "SumTo"), _elementwise),
    **dict.fromkeys(("Relu", "Clip", "LeakyRelu", "HardSigmoid", "MaskGrad"), CUT),
    **dict.fromkeys(("Elu", "Sigmoid", "Tanh", "Silu", "HardSwish", "Gelu", "Scale"), CUT),
    **dict.fromkeys(("EluGrad", "SigmoidGrad", "TanhGrad", "SiluGrad", "HardSwishGrad", "GeluGrad"), CUT),
    **dict.fromkeys(
        ("MaxPool", "MaxPoolGrad", "AveragePool", "AveragePoolGrad", "Resize", "ResizeGrad"), CUT
    ),
    **dict.fromkeys(("Quantise", "Dequantise", "Zero"), CUT),
}
