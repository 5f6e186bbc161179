"""How Affine and Expand are recognised: arithmetic with parameters, BatchNorm in inference, repeated parameters."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from onnx import NodeProto

from ...edge.program import BATCH
from ..errors import ExportError
from ..reading.graph import ForwardGraph, Shape, attributes
from .patterns import either_order
from .rule import Match, Param, refuse_computed

_Operand = tuple[int, Param]
"""The axis of an Affine, and a parameter in the shape that goes with it."""


def match_affine(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """Add, Mul, Sub or Div of x and a parameter; Mul then Add; BatchNormalization with its running statistics."""
    if node.op_type == "BatchNormalization":
        return _batch_norm(graph, node)
    readers = {"Add": _add, "Mul": _mul, "Sub": _sub, "Div": _div}
    if node.op_type not in readers:
        return None
    match = readers[node.op_type](graph, node)
    if match is None:
        refuse_computed(graph, node)
    operands = [graph.param("", name) for name in node.input]
    if match is None and None in operands and any(param and _counts(param) for param in operands):
        shapes = [
            graph.shape(name) if param is None else param.value.shape
            for name, param in zip(node.input, operands, strict=True)
        ]
        raise ExportError(
            f"{graph.described(node)}: operands of shapes {shapes[0]} and {shapes[1]}; a parameter or constant must "
            "have one number for each channel (axis 1), or the shape of the last axes, and make the other no larger"
        )
    return match


def _add(graph: ForwardGraph, node: NodeProto) -> Match | None:
    for product, added in either_order(node, "Add"):
        bias = _operand(graph, node, product, added, "bias")
        if bias is None:
            continue
        for x, factor in either_order(graph.producer(product), "Mul"):
            scale = _operand(graph, node, x, factor, "weight")
            if scale is not None and (scale[0], scale[1].value.shape) == (bias[0], bias[1].value.shape):
                return _affine(x, scale, bias, nodes=2)
        return _affine(product, None, bias)
    return None


def _mul(graph: ForwardGraph, node: NodeProto) -> Match | None:
    for x, factor in either_order(node, "Mul"):
        scale = _operand(graph, node, x, factor, "weight")
        if scale is not None:
            return _affine(x, scale, None)
    return None


def _sub(graph: ForwardGraph, node: NodeProto) -> Match | None:
    left, right = node.input
    subtracted = _operand(graph, node, left, right, "bias")
    if subtracted is not None:
        axis, param = subtracted
        return _affine(left, None, (axis, replace(param, value=-param.value, source="")))
    bias = _operand(graph, node, right, left, "bias")
    if bias is None:
        return None
    minus = Param("weight", -np.ones_like(bias[1].value), learned=False)
    return _affine(right, (bias[0], minus), bias)


def _div(graph: ForwardGraph, node: NodeProto) -> Match | None:
    x, divisor = node.input
    found = _operand(graph, node, x, divisor, "weight")
    if found is None:
        return None
    axis, param = found
    if param.learned or not param.value.all():
        raise ExportError(
            f"{graph.described(node)}: division by a parameter, or by zero; multiply by a parameter instead"
        )
    return _affine(x, (axis, replace(param, value=1 / param.value.astype(np.float64))), None)


def _affine(x: str, scale: _Operand | None, bias: _Operand | None, nodes: int = 1) -> Match:
    axis = next(operand[0] for operand in (scale, bias) if operand)
    return Match((x,), (scale and scale[1], bias and bias[1]), nodes, {"axis": axis})


def _batch_norm(graph: ForwardGraph, node: NodeProto) -> Match:
    """Y = s*(x - mean)/sqrt(var + eps) + b is one scale and one bias, computed here."""
    attrs, x = attributes(node), graph.shape(node.input[0])
    if attrs.get("training_mode", 0):
        raise ExportError(
            f"{graph.described(node)}: it uses the statistics of each batch (training_mode=1); export it in "
            "evaluation mode, or convert it to GroupNorm"
        )
    scale, bias = (
        graph.param(part, name) for part, name in zip(("weight", "bias"), node.input[1:3], strict=True)
    )
    mean, variance = (graph.constant(name) for name in node.input[3:5])
    if scale is None or bias is None or mean is None or variance is None or x[0] != BATCH:
        raise ExportError(
            f"{graph.described(node)}: its statistics are not fixed; give a BatchNorm running statistics (or "
            "convert it to GroupNorm), an InstanceNorm track_running_stats=False"
        )
    factor = scale.value.astype(np.float64) / np.sqrt(
        variance.astype(np.float64) + attrs.get("epsilon", 1e-5)
    )
    shift = bias.value - mean * factor
    learned = scale.learned or bias.learned
    params = (Param("weight", factor, learned=learned), Param("bias", shift, learned=learned))
    return Match((node.input[0],), params, 1, {"axis": 1})


def _operand(graph: ForwardGraph, node: NodeProto, x: str, value: str, part: str) -> _Operand | None:
    """A value as the scale or bias of x; None if it is none, or a constant scalar, which is no layer."""
    param = graph.param(part, value)
    if param is None or graph.param(part, x) is not None or not _counts(param):
        return None
    shape = graph.shape(x)
    found = spread(shape, _shape(graph, value, param)) if shape == graph.shape(node.output[0]) else None
    if found is None or _long(param.value.shape) != _long(found[1]):
        return None
    return found[0], replace(param, value=param.value.reshape(found[1]))


def _counts(param: Param) -> bool:
    """Whether a parameter is more than a constant scalar, which Scale takes."""
    return param.learned or param.value.size > 1


def _shape(graph: ForwardGraph, value: str, param: Param) -> tuple[int, ...]:
    """Shape of a parameter where it is used."""
    if not param.learned or value in graph.params:
        return param.value.shape
    return tuple(int(axis) for axis in graph.shape(value))


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in shape if axis != 1)


def spread(x: Shape, parameter: tuple[int, ...]) -> tuple[int, tuple[int, ...]] | None:
    """How a parameter broadcasts over x (N, ...).

    Returns:
        The axis and the shape in which Affine keeps it: (1, (C,)), (-1, trailing axes of x) or (-1, (1,)); None
        where the parameter has a batch or other axes.
    """
    aligned = (1,) * (len(x) - len(parameter)) + parameter
    if len(aligned) > len(x) or aligned[0] != 1:
        return None
    core = aligned[1:]
    if prod(core) == 1:
        return -1, (1,)
    if len(core) > 1 and core[0] == x[1] and prod(core[1:]) == 1:
        return 1, core[:1]
    first = next(place for place, axis in enumerate(core) if axis != 1)
    trailing = core[first:]
    return (-1, trailing) if trailing == x[len(x) - len(trailing) :] else None


def match_expand(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """Expand or Tile of a parameter to the batch: a class token."""
    if node.op_type not in ("Expand", "Tile"):
        return None
    value, nodes = node.input[0], 1
    while (maker := graph.producer(value)) is not None and maker.op_type in ("Expand", "Tile"):
        value, nodes = maker.input[0], nodes + 1
    param, shape = graph.param("value", value), graph.shape(node.output[0])
    if param is None or shape[0] != BATCH:
        return None
    core = _shape(graph, value, param)
    first = next((place for place, axis in enumerate(core) if axis != 1), len(core) - 1)
    kept = core[first:]
    fits = all(a in (1, b) for a, b in zip(kept[::-1], shape[:0:-1], strict=False))
    if (
        len(core) > len(shape)
        or len(kept) >= len(shape)
        or not fits
        or _long(kept) != _long(param.value.shape)
    ):
        raise ExportError(
            f"{graph.described(node)}: a parameter of shape {core} cannot be repeated to {shape}"
        )
    return Match((), (replace(param, value=param.value.reshape(kept)),), nodes)
