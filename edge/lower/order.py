"""Which operations a gradient step needs, and in what order they run.

Dead code: only what leads to the updates of the chosen layers, to the loss, or to the logits, is kept;
outputs that nobody reads are dropped. So a frozen layer loses its parameter gradients, its attention,
and, below the lowest updated layer, the whole backward pass with everything saved for it.

Order: program order, except that attention and parameter gradients run as soon as their inputs exist. That
frees saved inputs and gradients at the earliest legal moment (a weight gradient runs before the input
gradient replaces its `gy`), and keeps the reads of one value together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from ..program import Op, Program
from ..reference import KERNELS

PARAMETER_GRADIENTS = frozenset(kind for kind, kernel in KERNELS.items() if kernel.accumulates)
UPDATE = "SgdUpdate"
GIVEN_ROLES = ("param", "step-size", "attention-param", "input")


@dataclass(frozen=True)
class Ordered:
    """Live operations in execution order.

    Attributes:
        ops: without the updates.
        updates: the parameter updates.
        forward: how many of `ops` belong to forward and loss; what they write and later ones read is saved.
    """

    ops: tuple[Op, ...]
    updates: tuple[Op, ...]
    forward: int


def training_order(program: Program, updated: Collection[str]) -> Ordered:
    """Return the operations of one gradient step that updates the layers named in `updated`."""
    updates = [op for op in program.ops(("update",)) if op.layer in updated]
    loss = program.outputs["loss"]
    live = _live(program, [loss, *(name for op in updates for name in op.inputs)])
    ops = drop_unread(live, {loss, *(name for op in updates for name in op.inputs)})
    ordered = eager(program, ops)
    last_loss = max(i for i, op in enumerate(ordered) if loss in op.outputs)
    return Ordered(tuple(ordered), tuple(updates), last_loss + 1)


def forward_order(program: Program, output: str) -> Ordered:
    """Return the operations from the program's samples to one of its outputs, named as in `program.outputs`."""
    name = program.outputs[output]
    ops = drop_unread(_live(program, [name]), {name})
    return Ordered(tuple(ops), (), len(ops))


def _live(program: Program, roots: Iterable[str]) -> list[Op]:
    """Return the operations that `roots` depend on, in program order."""
    ops = list(program.ops())
    producer = {name: index for index, op in enumerate(ops) for name in op.outputs if name}
    needed: set[int] = set()
    pending = [name for name in roots if name]
    while pending:
        index = producer.get(pending.pop())
        if index is not None and index not in needed:
            needed.add(index)
            pending.extend(name for name in ops[index].inputs if name)
    return [ops[index] for index in sorted(needed)]


def drop_unread(ops: Iterable[Op], keep: Collection[str]) -> list[Op]:
    """Drop the outputs that neither one of the operations reads nor `keep` names."""
    ops = list(ops)
    read = {name for op in ops for name in op.inputs} | set(keep)
    return [replace(op, outputs=tuple(name if name in read else "" for name in op.outputs)) for op in ops]


def eager(program: Program, ops: list[Op]) -> list[Op]:
    """Move attention and parameter gradients forward to where their last input is written."""
    attention = {name for op in program.ops(("attention",)) for name in op.outputs if name}
    waiting = [op for op in ops if op.kind in PARAMETER_GRADIENTS or not attention.isdisjoint(op.outputs)]
    moved = {id(op) for op in waiting}
    ready = {tensor.name for tensor in program.tensors.values() if tensor.role in GIVEN_ROLES} | {""}
    result: list[Op] = []
    for op in (None, *(op for op in ops if id(op) not in moved)):
        if op is not None:
            result.append(op)
            ready.update(op.outputs)
        while runnable := [other for other in waiting if ready.issuperset(other.inputs)]:
            result.extend(runnable)
            ready.update(name for other in runnable for name in other.outputs)
            waiting = [other for other in waiting if other not in runnable]
    return result
