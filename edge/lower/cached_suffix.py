"""Prefix and suffix: what no gradient step changes is computed once, for all samples, and kept.

A value is *changing* if it depends on a parameter that any gradient step updates or on an input other than the
samples (labels, sample weights, recorded selections). Operations that read changing values are the suffix, run in
every gradient step; all others are the prefix, run once. What the suffix reads of the prefix is cached.

A norm whose scale or bias is updated but whose input does not change is cut in two: x_hat is computed once, y from
it in every step, so that the x_hat which the gradient of the scale needs is the only cache. Cheap operations at the
cut move behind it where their inputs take fewer bytes than their outputs or are cached anyway; views of the same
bytes (Reshape) always do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..program import Op, Program, Tensor
from ..reference import KERNELS
from .order import GIVEN_ROLES, Ordered, drop_unread, eager
from .outline import Outline

NORM_AXES = {"GroupNorm": 1, "LayerNorm": -1}
POINTWISE = ("Relu", "Clip", "LeakyRelu", "HardSigmoid", "HardSwish", "Affine", "Scale", "Add", "Sub", "Mul")
RESHAPING = ("Expand", "Concat", "Slice", "Pad", "Resize", "Transpose")
CHEAP = frozenset((*POINTWISE, *RESHAPING))


@dataclass(frozen=True)
class _Halves:
    """The operations of one gradient step on either side of the cut; `forward` and `backward` are the suffix."""

    prefix: list[Op]
    forward: list[Op]
    backward: list[Op]


def split(program: Program, outlines: Sequence[Outline]) -> tuple[Outline, list[Outline]]:
    """Split the outlines of all gradient steps into one prefix and their suffixes.

    Returns:
        The prefix, which has no operations where every value changes, and a suffix for every outline.
    """
    images = outlines[0].images
    inputs = {tensor.name for tensor in program.with_role("input")} - {images}
    changing = inputs | {op.inputs[0] for one in outlines for op in one.ordered.updates}
    whole = [_with_norms_cut(program, one, changing) for one in outlines]
    changing |= _differently_defined(whole)
    halves = [_halves(one, changing) for one in whole]
    tensors = {name: tensor for one in outlines for name, tensor in one.tensors.items()}
    front = _merged(program, [half.prefix for half in halves])
    reads = {name for half in halves for op in (*half.forward, *half.backward) for name in _needed(op)}
    moved = _movable(front, reads, tensors)
    cached = frozenset((reads & _written(front)) - _written(moved))
    ops = tuple(_leading_to(front, cached))
    prefix = Outline(
        (False,) * len(program.layers), Ordered(ops, (), len(ops)), tensors, images, (), {}, cached
    )
    return prefix, [_suffix(*pair, moved, cached) for pair in zip(whole, halves, strict=True)]


def cached_views(one: Outline) -> dict[str, str]:
    """Return the values that are the bytes of a cache under another shape, and that cache."""
    views: dict[str, str] = {}
    for op in one.ordered.ops:
        if KERNELS[op.kind].alias:
            source = views.get(op.inputs[0], op.inputs[0])
            if source in one.cached:
                views[op.outputs[0]] = source
    return views


def _with_norms_cut(program: Program, one: Outline, changing: Collection[str]) -> Outline:
    """Cut every norm with unchanging input and changing scale or bias in two."""
    x_hats = {op.outputs[0]: op.outputs[1] for op in program.ops(("forward",)) if op.kind in NORM_AXES}
    known, ops, cuts = set(changing), [], 0
    for op in one.ordered.ops:
        pieces = [op]
        if op.kind in NORM_AXES and op.inputs[0] not in known and known.intersection(_needed(op)):
            pieces = _norm_pieces(op, op.outputs[1] or x_hats[op.outputs[0]])
            cuts += 1
        for piece in pieces:
            if known.intersection(_needed(piece)):
                known.update(filter(None, piece.outputs))
        ops += pieces
    return replace(one, ordered=replace(one.ordered, ops=tuple(ops), forward=one.ordered.forward + cuts))


def _norm_pieces(op: Op, x_hat: str) -> list[Op]:
    normalise = replace(op, outputs=("", x_hat, op.outputs[2]))
    affine = Op("Affine", (x_hat, *op.inputs[1:]), op.outputs[:1], op.layer, {"axis": NORM_AXES[op.kind]})
    return [normalise, affine]


def _needed(op: Op) -> tuple[str, ...]:
    """Return the inputs that the outputs depend on: without y a norm needs neither scale nor bias."""
    names = op.inputs[:1] if op.kind in NORM_AXES and not op.outputs[0] else op.inputs
    return tuple(filter(None, names))


def _differently_defined(outlines: Iterable[Outline]) -> set[str]:
    """Return the values that gradient steps compute in different ways (attention with another cap)."""
    first: dict[str, tuple[object, ...]] = {}
    different: set[str] = set()
    for one in outlines:
        for op in one.ordered.ops:
            definition = (op.kind, op.inputs, dict(op.attrs))
            different.update(n for n in op.outputs if n and first.setdefault(n, definition) != definition)
    return different


def _halves(one: Outline, changing: Collection[str]) -> _Halves:
    known, halves = set(changing), _Halves([], [], [])
    for index, op in enumerate(one.ordered.ops):
        if known.isdisjoint((*_needed(op), *op.outputs)):
            halves.prefix.append(op)
        else:
            known.update(filter(None, op.outputs))
            (halves.forward if index < one.ordered.forward else halves.backward).append(op)
    return halves


def _merged(program: Program, fronts: Sequence[Sequence[Op]]) -> list[Op]:
    """Return every operation of any of the fronts once, with the outputs that any of them wants, in a legal order."""
    home = {name: index for index, op in enumerate(program.ops()) for name in op.outputs if name}
    result: dict[int, Op] = {}
    for front in fronts:
        for op in front:
            key = next(home[name] for name in op.outputs if name)
            known = result.get(key, op)
            outputs = tuple(a or b for a, b in zip(known.outputs, op.outputs, strict=True))
            result[key] = replace(op, outputs=outputs)
    return eager(program, [result[key] for key in sorted(result)])


def _movable(front: Sequence[Op], reads: set[str], tensors: Mapping[str, Tensor]) -> list[Op]:
    """Return which operations at the cut run behind it, in order; what they read is added to `reads`."""

    def size(names: Iterable[str]) -> int:
        return sum(tensors[name].size_bytes(1) for name in names)

    moved = []
    for op in reversed(front):
        crossing = reads.intersection(op.outputs)
        sources = {n for n in _needed(op) if tensors[n].role == "input" or tensors[n].role not in GIVEN_ROLES}
        alias = KERNELS[op.kind].alias
        if crossing and (alias or (op.kind in CHEAP and size(sources - reads) < size(crossing))):
            moved.append(op)
            reads |= sources
    return moved[::-1]


def _leading_to(ops: Sequence[Op], wanted: Collection[str]) -> list[Op]:
    """Return the operations that `wanted` depends on, without outputs that nobody reads."""
    needed, kept = set(wanted), []
    for op in reversed(ops):
        if not needed.isdisjoint(op.outputs):
            kept.append(op)
            needed.update(_needed(op))
    return drop_unread(kept[::-1], wanted)


def _suffix(one: Outline, half: _Halves, moved: Sequence[Op], cached: Collection[str]) -> Outline:
    pending = {name: op for op in moved for name in op.outputs if name}
    forward, backward = (list(_with_sources(part, pending)) for part in (half.forward, half.backward))
    ops = drop_unread([*forward, *backward], {*one.outputs.values(), *one.accumulators})
    read = {name for op in ops for name in op.inputs}
    ordered = Ordered(tuple(ops), one.ordered.updates, len(forward))
    return replace(one, ordered=ordered, cached=frozenset(read.intersection(cached)))


def _with_sources(ops: Iterable[Op], pending: dict[str, Op]) -> Iterator[Op]:
    """Yield the operations, each behind those of `pending` that it needs; these leave `pending`."""
    for op in ops:
        for name in op.inputs:
            if source := pending.get(name):
                for output in source.outputs:
                    pending.pop(output, None)
                yield from _with_sources([source], pending)
        yield op


def _written(ops: Iterable[Op]) -> set[str]:
    return {name for op in ops for name in op.outputs if name}
