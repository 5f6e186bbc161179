"""Upsampling and other resizing of pictures and signals."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import isclose

from onnx import NodeProto

from ...edge.program import Op
from ...edge.reference.resize import axis_entries
from ...edge.reference.separable import COORDINATES, nearest_entries
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, attributes
from ..tape import Tape
from .matrices import apply_matrices
from .rule import Match, Rule

_HALF = Fraction(1, 2)
_ROUNDING: dict[str, Callable[[Fraction], int]] = {
    "floor": lambda place: place // 1,
    "ceil": lambda place: -(-place // 1),
    "round_prefer_floor": lambda place: -(-(place - _HALF) // 1),
    "round_prefer_ceil": lambda place: (place + _HALF) // 1,
}


def _match(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "Resize":
        return None
    before, after = (
        [int(axis) for axis in graph.shape(name)[1:]] for name in (node.input[0], node.output[0])
    )
    attrs = attributes(node)
    mode, coordinates = (
        attrs.get("mode", "nearest"),
        attrs.get("coordinate_transformation_mode", "half_pixel"),
    )
    if coordinates == "pytorch_half_pixel" and 1 not in after[1:]:
        coordinates = "half_pixel"
    known = mode in ("nearest", "linear") and coordinates in COORDINATES and not attrs.get("antialias", 0)
    if not known or len(before) not in (2, 3) or before[0] != after[0]:
        raise ExportError(
            f"{graph.described(node)}: expected nearest or linear over one or two spatial axes, coordinates "
            f"{', '.join(COORDINATES)}, without antialias; got {mode}, {coordinates}, {before} to {after}"
        )
    _check_scales(graph, node, before, after)
    if mode == "nearest":
        rounding = _ROUNDING[attrs.get("nearest_mode", "round_prefer_floor")]
        coordinates = _nearest_coordinates(graph, node, coordinates, rounding)
    return Match((node.input[0],), attrs={"mode": mode, "coordinates": coordinates})


def _check_scales(graph: ForwardGraph, node: NodeProto, before: list[int], after: list[int]) -> None:
    """Refuse a factor that is not the ratio of the sizes: places would be computed from it, not from them."""
    scales = graph.constant(node.input[2]) if node.input[2:] and node.input[2] else None
    if scales is None or not scales.size:
        return
    factors = scales.reshape(-1).tolist()[-len(before) + 1 :]
    for factor, size, out in zip(factors, before[1:], after[1:], strict=True):
        if not isclose(factor * size, out, rel_tol=1e-5):
            raise ExportError(
                f"{graph.described(node)}: factor {factor:g} makes {out} of {size}, which is not their ratio; give the "
                f"size instead: F.interpolate(x, size={tuple(after[1:])})"
            )


def _nearest_coordinates(
    graph: ForwardGraph, node: NodeProto, coordinates: str, rounding: Callable[[Fraction], int]
) -> str:
    """The coordinates that, rounded down, choose the same elements as these with another rounding."""
    shapes = (graph.shape(name)[2:] for name in (node.input[0], node.output[0]))
    sizes = [(int(size), int(out)) for size, out in zip(*shapes, strict=True)]
    for candidate in (coordinates, *COORDINATES):
        if all(
            [min(max(rounding(COORDINATES[coordinates](i, size, out)), 0), size - 1) for i in range(out)]
            == [column for _, column, _ in nearest_entries(size, out, candidate)]
            for size, out in sizes
        ):
            return candidate
    raise ExportError(
        f"{graph.described(node)}: this rounding ({attributes(node).get('nearest_mode')}) of {coordinates} places is "
        "not supported for these sizes; use torch.nn.Upsample(mode='nearest')"
    )


def _gradient(tape: Tape, op: Op) -> None:
    tape.to_input(op, "ResizeGrad", (tape.gradient(op.outputs[0]),), op.attrs)


def _expand(builder: Builder, op: Op) -> None:
    apply_matrices(builder, op, axis_entries, transposed=False)


def _expand_grad(builder: Builder, op: Op) -> None:
    apply_matrices(builder, op, axis_entries, transposed=True)


RULES = (
    Rule(
        "Resize",
        _expand,
        _match,
        _gradient,
        signature="x -> y",
        attributes="mode (nearest, linear), coordinates (asymmetric, half_pixel, align_corners)",
        meaning="x (N, C, L) or (N, C, H, W) in the size of y, as ONNX Resize with sizes (nearest: rounded down)",
    ),
    Rule(
        "ResizeGrad",
        _expand_grad,
        signature="gy -> gx",
        attributes="as Resize",
        meaning="the transposed interpolation",
    ),
)
