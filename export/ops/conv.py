"""Convolution: its gradients are a transposed convolution, and one with batch and channels swapped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import NodeProto

from ...edge.program import Op
from ..errors import ExportError
from ..forward_graph import ForwardGraph, attributes
from ..onnx_builder import Builder, sample_scale
from ..tape import SAMPLE_WEIGHT, Tape
from .rule import Match, Rule, integer, integers, weight_and_bias


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "Conv":
        return None
    attrs = attributes(node)
    weight, bias = weight_and_bias(graph, node)
    if weight is None or len(graph.shape(node.output[0])) != 4 or weight.value.ndim != 4:
        raise ExportError(
            f"node {node.name!r} (Conv): expected a 2-d convolution with module parameters as weight and bias"
        )
    if attrs.get("auto_pad", "NOTSET") != "NOTSET":
        raise ExportError(
            f"node {node.name!r} (Conv): auto_pad is not supported; write the padding as numbers"
        )
    geometry = {
        "strides": attrs.get("strides", [1, 1]),
        "pads": attrs.get("pads", [0, 0, 0, 0]),
        "dilations": attrs.get("dilations", [1, 1]),
        "groups": attrs.get("group", 1),
    }
    plain = {name: list(value) if isinstance(value, Sequence) else value for name, value in geometry.items()}
    return Match((node.input[0],), (weight, bias), attrs=plain)


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
    reach = [dilations[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    padding = [(size[axis] + pads[axis] + pads[axis + 2] - reach[axis]) % strides[axis] for axis in (0, 1)]
    builder.add_many("ConvTranspose", (gy, w), op.outputs, {**attrs, "output_padding": padding})


def _expand_weight_grad(builder: Builder, op: Op) -> None:
    """Correlate x with gy: a convolution over the batch, with strides and dilations exchanged.

    With G groups, x becomes (I/G, G*N, H, W): the batch of each group is one group of channels.
    """
    x, gy, sample_weight, fw, bw = op.inputs
    scaled = builder.add("Mul", gy, builder.over_space(sample_scale(builder, sample_weight, bw), 4))
    if fw:
        x = builder.add("Mul", x, builder.over_space(fw, 4))
    attrs = _onnx_attrs(op)
    groups, (channels, *size) = attrs["group"], builder.shape(op.inputs[0])
    kernel = builder.shape(op.outputs[0])[2:]
    by_group = builder.reshape(x, (0, groups, channels // groups, *size))
    rows = builder.reshape(
        builder.add("Transpose", by_group, perm=[2, 1, 0, 3, 4]), (channels // groups, -1, *size)
    )
    columns = builder.add("Transpose", scaled, perm=[1, 0, 2, 3])
    swapped = {
        "strides": attrs["dilations"],
        "dilations": attrs["strides"],
        "pads": attrs["pads"],
        "group": groups,
    }
    full = builder.add("Conv", rows, columns, kernel_shape=builder.shape(gy)[1:], **swapped)
    window = builder.add("Slice", full, builder.ints([0, 0]), builder.ints(kernel), builder.ints([2, 3]))
    builder.add("Transpose", window, perm=[1, 0, 2, 3], out=op.outputs[0])


RULES = (
    Rule(
        "Conv",
        _expand,
        _match,
        _gradient,
        "conv",
        signature="x, w, [b] -> y",
        attributes="strides [2], pads [top, left, bottom, right], dilations [2], groups",
        meaning="cross-correlation, w (O, I/groups, kh, kw)",
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
