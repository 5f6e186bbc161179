"""Results of a chain in the memory of inputs that nothing reads afterwards.

Both must have slices of the same size, and an input's slice must be read for the last time before the result's is
written. Where a kernel cannot write over what it reads, the result is computed in a tile and copied in the end: a
tile more, a map less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..program import Tensor
from ..reference import KERNELS
from .body import Body
from .order import UPDATE
from .table import Step
from .tile_memory import inner_lives, rooms

COPY_BYTES = 4096  # smaller results are not worth a copy
COPY = "Concat"


@dataclass(frozen=True)
class Reuse:
    """A chain and which of its results lie in the memory of inputs.

    Attributes:
        steps: of the chain, with copies.
        inner: the values inside.
        apart: results whose slices hold no tile before.
        pairs: result to input.
    """

    steps: list[Step]
    inner: set[str]
    apart: set[str]
    pairs: dict[str, str]


def reuse(steps: Sequence[Step], inner: set[str], dying: Sequence[str], body: Body) -> Reuse:
    """Let results take the memory of inputs in `dying`, by themselves, without tiles over them, or by a copy."""
    found = Reuse(list(steps), set(inner), set(), {})
    results = [name for step in steps for name in step.outputs if _eligible(name, inner, body)]
    homes = _homes(found, results, body)
    for fits in (_in_place, _apart, _copied):
        for name in results:
            for other in dying:
                if name in found.pairs or other in found.pairs.values():
                    continue
                if body.bytes(name) == body.bytes(other) and fits(found, name, homes[name], other, body):
                    found.pairs[name] = other
    return found


def _eligible(name: str, inner: set[str], body: Body) -> bool:
    return bool(name) and name not in inner and body.tensors[name].batched


def _homes(found: Reuse, results: Sequence[str], body: Body) -> dict[str, list[str]]:
    """Return, of each result, itself and the tiles over its slice."""
    homes = {name: [name] for name in results}
    for room in rooms(found.steps, found.inner, set(results), body.bytes):
        if room.over:
            homes[room.over] += room.names
    return homes


def _in_place(found: Reuse, name: str, homes: Sequence[str], other: str, body: Body) -> bool:
    """Whether the input is read for the last time before, or by a kernel that may write over it."""
    lives = inner_lives(found.steps)
    first, last = min(lives[home][0] for home in homes), lives[other][1]
    return last < first or (last == first and _may_replace(found.steps[first], homes, other))


def _may_replace(step: Step, homes: Sequence[str], other: str) -> bool:
    return step.inputs.count(other) == 1 and any(
        position < len(step.outputs) and step.outputs[position] in homes and step.inputs[source] == other
        for position, source in KERNELS[step.kind].in_place.items()
    )


def _apart(found: Reuse, name: str, homes: Sequence[str], other: str, body: Body) -> bool:
    """Whether it is enough that no tile lies over the result."""
    if len(homes) == 1 or not _worth_it(name, body) or not _in_place(found, name, [name], other, body):
        return False
    found.apart.add(name)
    return True


def _copied(found: Reuse, name: str, homes: Sequence[str], other: str, body: Body) -> bool:
    """Compute a map in a tile and copy it in the end."""
    if not _worth_it(name, body):
        return False
    tensor = body.tensors[name]
    tile = f"{name}@tile"
    body.tensors[tile] = Tensor(tile, tensor.shape, tensor.dtype, tensor.role)
    for index, step in enumerate(found.steps):
        inputs, outputs = (
            tuple(tile if n == name else n for n in names) for names in (step.inputs, step.outputs)
        )
        found.steps[index] = replace(step, inputs=inputs, outputs=outputs)
    end = next((i for i, s in enumerate(found.steps) if s.kind == UPDATE), len(found.steps))
    found.steps.insert(end, Step(COPY, (tile,), (name,), {"axis": 1}))
    found.inner.add(tile)
    return True


def _worth_it(name: str, body: Body) -> bool:
    return body.tensors[name].dtype == "float32" and body.bytes(name) * body.batch >= COPY_BYTES
