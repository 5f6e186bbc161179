"""Which values share memory, for how long, and how many bytes: the buffers of a step program.

A value lives from the first step that names it to the last. Two rules put values into one buffer: an
operation whose kernel says `alias` (Flatten) hands on its input's bytes; an operation whose kernel
allows it writes over an input that nobody reads afterwards. So a frozen prefix (convolution, norm, ReLU,
pool) runs in the memory of the convolution's output, and what the pool no longer needs is free from the
next step on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..program import DTYPE_BITS, Tensor
from ..reference import KERNELS
from .table import LOAD, Buffer, Segment, Step

PACKED_BITS = 8


@dataclass
class Interval:
    """First and last step that name a value."""

    first: int
    last: int


def lifetimes(steps: Sequence[Step], inside: Mapping[str, Tensor]) -> dict[str, Interval]:
    """Return the interval of every value that lives in the arena (the names in `inside`)."""
    found: dict[str, Interval] = {}
    for index, step in enumerate(steps):
        for name in (*step.inputs, *step.outputs):
            if name in inside:
                found.setdefault(name, Interval(index, index)).last = index
    return found


def share(steps: Sequence[Step], lives: Mapping[str, Interval]) -> list[list[str]]:
    """Group the values of the arena: each group lies in one buffer, from the same first byte on."""
    group = {name: [name] for name in lives}
    for index, step in enumerate(steps):
        for position, source in _candidates(step, lives):
            name = step.outputs[position]
            readers = sum(other in group[source] for other in step.inputs)
            dead = all(lives[other].last <= index for other in group[source] if other != name)
            if group[name] is group[source] or len(group[name]) > 1 or lives[name].first != index:
                continue
            if _hands_on(step) or (dead and readers == 1):
                group[source].append(name)
                group[name] = group[source]
    unique = {id(members): members for members in group.values()}
    return list(unique.values())


def _candidates(step: Step, lives: Mapping[str, Interval]) -> Iterator[tuple[int, str]]:
    """Yield (output position, input name) pairs that the kernel allows to be the same memory."""
    for target, source in in_place_pairs(step).items():
        if target < len(step.outputs) and step.outputs[target] in lives and step.inputs[source] in lives:
            yield target, step.inputs[source]


def in_place_pairs(step: Step) -> Mapping[int, int]:
    """Return output position -> input position that may be the same memory."""
    if step.kind == LOAD:
        return {}
    if step.slices is not None:
        return step.slices.in_place
    kernel = KERNELS[step.kind]
    return {0: 0} if kernel.alias else kernel.in_place


def _hands_on(step: Step) -> bool:
    return step.slices is None and KERNELS[step.kind].alias


def value_buffers(
    groups: Sequence[Sequence[str]],
    lives: Mapping[str, Interval],
    tensors: Mapping[str, Tensor],
    terms: Mapping[str, str],
    micro_batch: int,
) -> list[Buffer]:
    """Return the buffer of each group, its size following the values that are alive."""
    sizes = {name: tensors[name].size_bytes(micro_batch) for group in groups for name in group}
    return [Buffer(group[0], _segments(group, lives, sizes, terms)) for group in groups]


def _segments(
    group: Sequence[str], lives: Mapping[str, Interval], sizes: Mapping[str, int], terms: Mapping[str, str]
) -> tuple[Segment, ...]:
    """Return spans of constant size: that of the largest live value, the last among equals."""
    cuts = sorted({lives[name].first for name in group} | {lives[name].last + 1 for name in group})
    spans: list[Segment] = []
    for first, after in pairwise(cuts):
        alive = [name for name in group if lives[name].first <= first <= lives[name].last]
        largest = max(reversed(alive), key=sizes.__getitem__)
        span = Segment(first, after - 1, sizes[largest], terms[largest])
        if spans and (spans[-1].bytes, spans[-1].term) == (span.bytes, span.term):
            span = Segment(spans.pop().first, span.last, span.bytes, span.term)
        spans.append(span)
    return tuple(spans)


def workspace_buffers(steps: Sequence[Step]) -> list[Buffer]:
    """Return one buffer for the scratch memory of every step that needs some."""
    return [
        Buffer(workspace_name(index), (Segment(index, index, step.workspace_bytes, "workspace"),))
        for index, step in enumerate(steps)
        if step.workspace_bytes
    ]


def workspace_name(index: int) -> str:
    """Return the buffer name of the scratch memory of step `index`."""
    return f"workspace@{index}"


def stored_shape(tensor: Tensor, batch: int) -> tuple[int, ...]:
    """Return the shape of the array that holds a tensor: packed types are (N, bytes per sample)."""
    if DTYPE_BITS[tensor.dtype] < PACKED_BITS:
        return (batch, tensor.size_bytes(1))
    return tensor.concrete(batch)
