"""Convolution in one or two dimensions: its gradients are a transposed convolution, and one with batch and channels
swapped.
"""

from __future__ import annotations

from typing import Any

from onnx import NodeProto

from ...edge.program import Op
from ..errors import ExportError
from ..onnx_builder import Builder, sample_scale
from ..reading.graph import ForwardGraph, Shape, attributes
from ..tape import SAMPLE_WEIGHT, Tape
from .rule import Match, Param, Rule, integer, integers, weight_and_bias


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "Conv":
        return None
    attrs, x, y = attributes(node), graph.shape(node.input[0]), graph.shape(node.output[0])
    groups = int(attrs.get("group", 1))
    if len(x) not in (3, 4):
        raise ExportError(
            f"{graph.described(node)}: expected a 1-d or 2-d convolution, got {len(x) - 2} dimensions"
        )
    weight, bias = weight_and_bias(graph, node)
    if weight is None or not _fits(weight, bias, x, y, groups):
        raise ExportError(
            f"{graph.described(node)}: expected a weight and a bias that are parameters as they are, or constants; "
            "compute no weight from another tensor (weight_norm: remove it with torch.nn.utils.parametrize first)"
        )
    kernel = list(weight.value.shape[2:])
    geometry = {
        "strides": _listed(attrs, "strides", [1] * len(kernel)),
        "dilations": _listed(attrs, "dilations", [1] * len(kernel)),
    }
    pads = _pads(attrs, [int(size) for size in x[2:]], kernel, geometry)
    return Match((node.input[0],), (weight, bias), attrs={**geometry, "pads": pads, "groups": groups})


def _fits(weight: Param, bias: Param | None, x: Shape, y: Shape, groups: int) -> bool:
    """Whether weight and bias have the shapes that the maps ask for."""
    shape = (y[1], int(x[1]) // groups)
    return (
        weight.value.ndim == len(x)
        and weight.value.shape[:2] == shape
        and (bias is None or bias.value.shape == (y[1],))
    )


def _listed(attrs: dict[str, Any], name: str, default: list[int]) -> list[int]:
    return [int(value) for value in attrs.get(name) or default]


def _pads(
    attrs: dict[str, Any], size: list[int], kernel: list[int], geometry: dict[str, list[int]]
) -> list[int]:
    """The padding as numbers, begins then ends; SAME_UPPER puts the odd one at the end, SAME_LOWER at the start."""
    automatic = attrs.get("auto_pad", "NOTSET")
    if automatic in ("NOTSET", ""):
        return _listed(attrs, "pads", [0] * (2 * len(kernel)))
    if automatic == "VALID":
        return [0] * (2 * len(kernel))
    begins, ends = [], []
    for axis, taps in enumerate(kernel):
        stride = geometry["strides"][axis]
        reach = geometry["dilations"][axis] * (taps - 1) + 1
        total = max(0, (-(-size[axis] // stride) - 1) * stride + reach - size[axis])
        less, more = total // 2, total - total // 2
        begins.append(less if automatic == "SAME_UPPER" else more)
        ends.append(more if automatic == "SAME_UPPER" else less)
    return begins + ends


def _gradient(tape: Tape, op: Op) -> None:
    x, w, b = op.inputs
    gy = tape.gradient(op.outputs[0])
    fw, bw = tape.attend(op, x, gy)
    tape.to_input(op, "ConvInputGrad", (gy, w), op.attrs)
    tape.to_parameter(op, w, "ConvWeightGrad", (x, gy, SAMPLE_WEIGHT, fw, bw), op.attrs)
    tape.to_parameter(op, b, "BiasGrad", (gy, SAMPLE_WEIGHT, bw), {"axis": 1})


def _onnx_attrs(op: Op) -> dict[str, Any]:
    lists = {name: integers(op, name) for name in ("strides", "pads", "dilations")}
    return {**lists, "group": integer(op, "groups")}


def _expand(builder: Builder, op: Op) -> None:
    builder.add_many("Conv", op.inputs, op.outputs, _onnx_attrs(op))


def _expand_input_grad(builder: Builder, op: Op) -> None:
    """Transposed convolution; the output padding restores the rows and columns that the strides left over."""
    gy, w = op.inputs
    attrs = _onnx_attrs(op)
    kernel, size = builder.shape(w)[2:], builder.shape(op.outputs[0])[1:]
    pads, strides, dilations = attrs["pads"], attrs["strides"], attrs["dilations"]
    rank = len(kernel)
    padding = [
        (size[axis] + pads[axis] + pads[axis + rank] - dilations[axis] * (kernel[axis] - 1) - 1)
        % strides[axis]
        for axis in range(rank)
    ]
    builder.add_many("ConvTranspose", (gy, w), op.outputs, {**attrs, "output_padding": padding})


def _expand_weight_grad(builder: Builder, op: Op) -> None:
    """Correlate x with gy: a convolution over the batch, with strides and dilations exchanged.

    With G groups, x becomes (I/G, G*N, [H,] W): the batch of each group is one group of channels.
    """
    x, gy, sample_weight, fw, bw = op.inputs
    attrs = _onnx_attrs(op)
    groups, (channels, *size) = attrs["group"], builder.shape(x)
    rank, kernel = len(size) + 2, builder.shape(op.outputs[0])[2:]
    scaled = builder.add("Mul", gy, builder.over_space(sample_scale(builder, sample_weight, bw), rank))
    if fw:
        x = builder.add("Mul", x, builder.over_space(fw, rank))
    by_group = builder.reshape(x, (0, groups, channels // groups, *size))
    turned = builder.add("Transpose", by_group, perm=[2, 1, 0, *range(3, rank + 1)])
    rows = builder.reshape(turned, (channels // groups, -1, *size))
    swap = [1, 0, *range(2, rank)]
    columns = builder.add("Transpose", scaled, perm=swap)
    swapped = {
        "strides": attrs["dilations"],
        "dilations": attrs["strides"],
        "pads": attrs["pads"],
        "group": groups,
    }
    full = builder.add("Conv", rows, columns, kernel_shape=builder.shape(gy)[1:], **swapped)
    axes = builder.ints(list(range(2, rank)))
    window = builder.add("Slice", full, builder.ints([0] * len(size)), builder.ints(kernel), axes)
    builder.add("Transpose", window, perm=swap, out=op.outputs[0])


RULES = (
    Rule(
        "Conv",
        _expand,
        _match,
        _gradient,
        "conv",
        signature="x, w, [b] -> y",
        attributes="strides [r], pads [2r: begins, then ends], dilations [r], groups",
        meaning="cross-correlation of x (N, C, L), r = 1, or (N, C, H, W), r = 2; w (O, I/groups, [kh,] kw)",
    ),
    Rule(
        "ConvInputGrad",
        _expand_input_grad,
        signature="gy, w -> gx",
        attributes="as Conv",
        meaning="the gradient of x",
    ),
    Rule(
        "ConvWeightGrad",
        _expand_weight_grad,
        signature="x, gy, sample_weight, [fw], [bw] -> gw",
        attributes="as Conv",
        meaning="gw[o,i] = sum_n sample_weight[n]*bw[n,o]*fw[n,i] * (x correlated with gy); for groups, fw index as "
        "in the note below",
    ),
)
