"""Operations that cut values out or surround them with a constant: each is the other's gradient."""

from __future__ import annotations

from onnx import NodeProto

from ...edge.program import Attr, Op
from ..errors import ExportError
from ..onnx_builder import Builder
from ..reading.graph import ForwardGraph, attributes
from ..tape import Tape
from .arithmetic import is_batched
from .rule import Match, Rule, integers, number

_LONGEST = 2**31 - 1


def _match_slice(graph: ForwardGraph, node: NodeProto) -> Match | None:
    """A Slice, a Gather of neighbouring elements, or a Pad by nothing but negative numbers."""
    if node.op_type not in ("Slice", "Gather", "Pad") or not is_batched(graph, node.input[0]):
        return None
    ranges = {"Slice": _slice_ranges, "Gather": _gather_ranges, "Pad": _crop_ranges}[node.op_type](
        graph, node
    )
    if ranges is None:
        return None
    shape = graph.shape(node.input[0])
    if 0 in ranges:
        raise ExportError(
            f"{graph.described(node)}: it takes {_described(ranges)}, which is not an axis of one sample; keep the "
            "batch first, and take parts along the axes after it"
        )
    if any(step != 1 for _, _, step in ranges.values()):
        raise ExportError(
            f"{graph.described(node)}: it takes {_described(ranges)}; expected one run of neighbours (step 1) along "
            "axes after the batch; join several runs with torch.cat"
        )
    starts, ends = [0] * (len(shape) - 1), [int(length) for length in shape[1:]]
    for axis, (start, end, _) in ranges.items():
        length = int(shape[axis])
        starts[axis - 1], ends[axis - 1] = (
            min(max(at + length * (at < 0), 0), length) for at in (start, end)
        )
    return Match((node.input[0],), attrs={"starts": starts, "ends": ends})


_Ranges = dict[int, tuple[int, int, int]]
"""axis -> (start, end, step) as in Python."""


def _described(ranges: _Ranges) -> str:
    return ", ".join(f"{start}:{end}:{step} of axis {axis}" for axis, (start, end, step) in ranges.items())


def _slice_ranges(graph: ForwardGraph, node: NodeProto) -> _Ranges | None:
    given = [graph.constant(name) if name else None for name in node.input[1:]]
    if given[0] is None or given[1] is None:
        return None
    count, rank = len(given[0]), len(graph.shape(node.input[0]))
    axes, steps = (*given[2:], None, None)[:2]
    columns = (given[0], given[1], [1] * count if steps is None else steps)
    rows = zip(range(count) if axes is None else axes, *columns, strict=True)
    found = {int(axis) % rank: (int(start), int(end), int(step)) for axis, start, end, step in rows}
    if 0 in found and found[0][0] == 0 and found[0][1] >= _LONGEST and found[0][2] == 1:
        del found[0]
    return found


def _gather_ranges(graph: ForwardGraph, node: NodeProto) -> _Ranges | None:
    places = graph.constant(node.input[1])
    if places is None or not places.size:
        return None
    axis = attributes(node).get("axis", 0) % len(graph.shape(node.input[0]))
    flat = [int(place) for place in places.reshape(-1)]
    first, step = flat[0], (flat[1] - flat[0] if flat[1:] else 1)
    if flat != [first + step * at for at in range(len(flat))]:
        raise ExportError(
            f"{graph.described(node)}: it takes elements {flat[:8]} of axis {axis}; expected neighbours: take slices "
            "and join them with torch.cat"
        )
    return {axis: (first, flat[-1] + 1 or _LONGEST, step)}


def _crop_ranges(graph: ForwardGraph, node: NodeProto) -> _Ranges | None:
    before, after, _ = _padding(graph, node)
    if any(width > 0 for width in (*before, *after)):
        return None
    widths = enumerate(zip(before, after, strict=True))
    return {axis: (-first, last or _LONGEST, 1) for axis, (first, last) in widths if first or last}


def _slice_gradient(tape: Tape, op: Op) -> None:
    shape = tape.tensors[op.inputs[0]].shape[1:]
    after = [int(length) - end for length, end in zip(shape, integers(op, "ends"), strict=True)]
    attrs: dict[str, Attr] = {"before": integers(op, "starts"), "after": after, "value": 0.0}
    tape.to_input(op, "Pad", (tape.gradient(op.outputs[0]),), attrs)


def _expand_slice(builder: Builder, op: Op) -> None:
    starts, ends = integers(op, "starts"), integers(op, "ends")
    axes = range(1, len(starts) + 1)
    shape = tuple(end - start for start, end in zip(starts, ends, strict=True))
    out, wanted = op.outputs[0], builder.shape(op.outputs[0])
    operands = (op.inputs[0], *(builder.ints(list(values)) for values in (starts, ends, axes)))
    if shape == wanted:
        builder.add("Slice", *operands, out=out)
    else:
        builder.reshape(builder.add("Slice", *operands), (-1, *wanted), out=out)


def _match_pad(graph: ForwardGraph, node: NodeProto) -> Match | None:
    if node.op_type != "Pad" or not is_batched(graph, node.input[0]):
        return None
    mode = attributes(node).get("mode", "constant")
    before, after, value = _padding(graph, node)
    if mode != "constant" or before[0] or after[0] or min(*before, *after) < 0:
        if mode == "constant" and not any(width > 0 for width in (*before, *after)):
            return None
        raise ExportError(
            f"{graph.described(node)}: padding {before} before and {after} after, mode {mode}; expected constants "
            "around the axes after the batch (cut with slices, apart from padding)"
        )
    return Match((node.input[0],), attrs={"before": before[1:], "after": after[1:], "value": value})


def _padding(graph: ForwardGraph, node: NodeProto) -> tuple[list[int], list[int], float]:
    """Widths before and after every axis, and the value."""
    pads, value, axes = (graph.constant(name) if name else None for name in (*node.input[1:], "", "")[:3])
    if pads is None:
        raise ExportError(f"{graph.described(node)}: its padding is not fixed; use fixed sizes")
    rank = len(graph.shape(node.input[0]))
    chosen = list(range(rank)) if axes is None else [int(axis) % rank for axis in axes]
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(chosen):
        before[axis], after[axis] = int(pads[place]), int(pads[place + len(chosen)])
    return before, after, 0.0 if value is None else float(value.reshape(-1)[0])


def _pad_gradient(tape: Tape, op: Op) -> None:
    before, shape = integers(op, "before"), tape.tensors[op.outputs[0]].shape[1:]
    ends = [int(length) - width for length, width in zip(shape, integers(op, "after"), strict=True)]
    tape.to_input(op, "Slice", (tape.gradient(op.outputs[0]),), {"starts": before, "ends": ends})


def _expand_pad(builder: Builder, op: Op) -> None:
    before, after, out = integers(op, "before"), integers(op, "after"), op.outputs[0]
    widths = zip(builder.shape(out), before, after, strict=True)
    inner = tuple(length - first - last for length, first, last in widths)
    value = (
        op.inputs[0] if builder.shape(op.inputs[0]) == inner else builder.reshape(op.inputs[0], (-1, *inner))
    )
    builder.add(
        "Pad", value, builder.ints([0, *before, 0, *after]), builder.floats(number(op, "value")), out=out
    )


RULES = (
    Rule(
        "Slice",
        _expand_slice,
        _match_slice,
        _slice_gradient,
        signature="x -> y",
        attributes="starts, ends (one for each axis after the batch)",
        meaning="the elements from starts to ends (excluded); y may lack axes of length 1; its gradient is Pad",
    ),
    Rule(
        "Pad",
        _expand_pad,
        _match_pad,
        _pad_gradient,
        signature="x -> y",
        attributes="before, after (one for each axis after the batch), value",
        meaning="x surrounded by a value; x may lack axes of length 1; its gradient is Slice",
    ),
)
