"""Chains: which steps of a body run together, slice by slice.

A chain grows from one step on over the steps behind it. Steps that cannot join are passed over, before the chain
or behind it, where the order does not matter and memory is not lost by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import gcd

from ..losses import LOSSES
from .body import Body, Passed, names_of, reads, writes
from .order import UPDATE
from .slice_rules import divisor, roles, rule_of
from .table import LOAD, ZERO, Step
from .tile_memory import Room, rooms

LOOK = 48  # steps behind the first that a chain may reach
MIN_BYTES = 4096  # smaller maps are not worth a chain
DENSE = frozenset({"Conv", "ConvInputGrad", "ConvWeightGrad", "ConvWeightGradSparse"})
WEIGHT_GRADIENTS = frozenset({"ConvWeightGrad", "ConvWeightGradSparse"})
APART = (ZERO, UPDATE)  # run once per block
ENDS = frozenset({LOAD, *(loss.operation for loss in LOSSES.values())})  # recomputed values stay behind them


@dataclass(frozen=True)
class Chain:
    """Steps that run together.

    Attributes:
        before: steps that were passed over and run first.
        steps: of the chain.
        behind: steps that were passed over and run afterwards.
        common: the numbers of blocks are its divisors; 1 where something needs all channels of a tile.
    """

    before: list[Step]
    steps: list[Step]
    behind: list[Step]
    common: int


@dataclass
class _Growing:
    """A chain while it grows; `sampled`: something in it needs all channels of a value it writes."""

    body: Body
    members: list[int] = field(default_factory=list)
    common: int = 0
    sampled: bool = False
    cut: dict[str, bool] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)

    def takes(self, step: Step) -> bool:
        """Let a step join if it may."""
        rule = rule_of(step, self.body.tensors)
        if rule is None or not self._allowed(step) or not self.ended.isdisjoint(names_of(step)):
            return False
        cut = roles(step, rule)
        common = gcd(self.common, divisor(step, rule, self.body.tensors))
        whole = [name for name, is_cut in cut.items() if not is_cut and name in self.written]
        mixed = any(self.cut.get(name, is_cut) != is_cut for name, is_cut in cut.items())
        sampled = self.sampled or bool(whole) or mixed or common == 1
        if sampled and not self.sampled and not self._worth_samples(step, whole):
            return False
        self.common, self.sampled = common, sampled
        self.cut.update(cut)
        self.written |= writes(step)
        if step.kind == UPDATE:
            self.ended |= writes(step)
        return True

    def _allowed(self, step: Step) -> bool:
        if step.kind == UPDATE:
            return step.inputs[1] in self.written and (self.sampled or self.cut.get(step.inputs[0], True))
        if step.kind not in DENSE or self.body.convolutions:
            return True
        return step.kind in WEIGHT_GRADIENTS and (
            step.outputs[0] not in self.body.kept or step.inputs[0] in self.written
        )

    def _worth_samples(self, step: Step, whole: Sequence[str]) -> bool:
        """Whether to go sample by sample from now on, so that values read with all channels become tiles."""
        if self.body.batch == 1 or step.kind not in DENSE or not whole or self.body.kept.intersection(whole):
            return False
        saved = sum(self.body.bytes(name) for name in whole) * (self.body.batch - 1)
        result = step.outputs[0]
        if step.kind in WEIGHT_GRADIENTS and result not in self.body.kept:
            return self.body.bytes(result) < saved
        return max(self.body.bytes(name) for name in self.written if self.body.tensors[name].batched) < saved


def find_chain(front: Sequence[Step], body: Body) -> Chain | None:
    """Return the chain that starts with the first of these steps, None if there is none worth it."""
    window = front[:LOOK]
    members, before = _grown(window, body)
    if len(members) < 2:
        return None
    members = _without_loss(window, members, body)
    steps = _trimmed([window[i] for i in members], body)
    if not _useful(steps, body):
        return None
    return _ordered(window, steps, {id(window[i]) for i in before}, body)


def _grown(window: Sequence[Step], body: Body) -> tuple[list[int], list[int]]:
    """Return the positions of all that can join, and of what can run before."""
    growing, passed = _Growing(body), Passed(set(), set())
    before: list[int] = []
    for index, step in enumerate(window):
        if step.kind in ENDS or not (index == 0 or growing.members):
            break
        if passed.bars(step):
            passed.add(step)
        elif growing.takes(step):
            growing.members.append(index)
        elif step.kind != UPDATE and growing.written.isdisjoint(reads(step) | writes(step)):
            before.append(index)
        else:
            passed.add(step)
    return growing.members, before


def _without_loss(window: Sequence[Step], members: list[int], body: Body) -> list[int]:
    """Cut a chain off where reaching over a step keeps more memory than it saves."""
    inside = set(members)
    for index in range(members[0] + 1, members[-1]):
        if index in inside or not _large(window[index], body):
            continue
        start = [window[i] for i in members if i < index]
        rest = [window[i] for i in members if i > index]
        whole_now = tiles(start + rest, body)
        saved = sum(_size(n, body) for n in whole_now - tiles(start, body) if n in _written(start))
        new = sum(_size(n, body) for n in _written(rest) - whole_now)
        if saved <= new:
            return [i for i in members if i < index]
    return members


def _large(step: Step, body: Body) -> bool:
    return any(_size(name, body) >= MIN_BYTES for name in names_of(step) if name not in body.kept)


def _size(name: str, body: Body) -> int:
    return body.bytes(name) if body.tensors[name].batched else 0


def tiles(steps: Sequence[Step], body: Body) -> set[str]:
    """Return the values that nothing but these steps names."""
    named: dict[str, int] = {}
    for step in steps:
        for name in names_of(step):
            named[name] = named.get(name, 0) + 1
    return {name for name, count in named.items() if count == body.mentions[name] and name not in body.kept}


def in_order(steps: Sequence[Step]) -> list[Step]:
    """Return zeroing first, updates last."""
    before = [step for step in steps if step.kind == ZERO]
    after = [step for step in steps if step.kind == UPDATE]
    return [*before, *(step for step in steps if step.kind not in APART), *after]


def rooms_of(steps: Sequence[Step], body: Body) -> list[Room]:
    """Return the memory of the tiles for one sample and all channels."""
    inner = tiles(steps, body)
    outputs = {name for name in _written(steps) - inner if body.tensors[name].batched}
    return rooms(in_order(steps), inner, outputs, body.bytes)


def _written(steps: Iterable[Step]) -> set[str]:
    return {name for step in steps for name in step.outputs if name}


def _trimmed(steps: list[Step], body: Body) -> list[Step]:
    """Leave what hangs together with the first step and is there for a reason; [] if that is not the first."""
    first = steps[0]
    while True:
        together = _component(steps, body)
        in_tiles = {name for room in rooms_of(together, body) if not room.over for name in room.names}
        written, read = _written(together), {name for step in together for name in step.inputs}
        wanted = [
            step
            for step in together
            if step.kind not in DENSE
            or not in_tiles.isdisjoint(names_of(step))
            or not (written.isdisjoint(step.inputs) or read.isdisjoint(step.outputs))
        ]
        wanted = _with_gradients(wanted)
        if not wanted or wanted[0] is not first:
            return []
        if len(wanted) == len(steps):
            return wanted
        steps = wanted


def _with_gradients(steps: list[Step]) -> list[Step]:
    """Drop zeroing and updates whose gradient is not computed among these steps."""
    computed = {name for step in steps if step.kind not in APART for name in step.outputs}
    return [
        step
        for step in steps
        if step.kind not in APART or (step.inputs[1] if step.kind == UPDATE else step.outputs[0]) in computed
    ]


def _component(steps: Sequence[Step], body: Body) -> list[Step]:
    """Return the steps that hang together with the first by values they write, update, or read by channels."""
    links = _written(steps) | {step.inputs[0] for step in steps if step.kind == UPDATE}
    for step in steps:
        rule = rule_of(step, body.tensors)
        cut = roles(step, rule) if rule else {}
        links |= {name for name, is_cut in cut.items() if is_cut and _size(name, body) >= MIN_BYTES}
    users: dict[str, list[int]] = {}
    for index, step in enumerate(steps):
        for name in names_of(step) & links:
            users.setdefault(name, []).append(index)
    found, pending = {0}, [0]
    while pending:
        for name in names_of(steps[pending.pop()]) & links:
            fresh = [index for index in users.pop(name, ()) if index not in found]
            found.update(fresh)
            pending.extend(fresh)
    return [step for index, step in enumerate(steps) if index in found]


def _useful(steps: Sequence[Step], body: Body) -> bool:
    """Whether a chain keeps a value out of the arena, or passes over the same maps at once."""
    working = [step for step in steps if step.kind not in APART]
    if not working:
        return False
    in_tiles = [room.bytes for room in rooms_of(steps, body) if not room.over]
    if len(working) == 1:
        return len(steps) > 1 and max(in_tiles, default=0) >= MIN_BYTES
    return max(_size(name, body) for step in steps for name in names_of(step)) >= MIN_BYTES


def _ordered(window: Sequence[Step], steps: list[Step], before: set[int], body: Body) -> Chain | None:
    """Say what of the window up to the last step of the chain runs before it and what behind; None if it cannot."""
    inside = {id(step) for step in steps}
    last = max(index for index, step in enumerate(window) if id(step) in inside)
    written, first, behind, passed = _written(steps), [], [], Passed(set(), set())
    for step in window[: last + 1]:
        if id(step) in inside:
            if passed.bars(step):
                return None
            continue
        free = written.isdisjoint(reads(step) | writes(step)) and not passed.bars(step)
        if free and step.kind != UPDATE and (id(step) in before or step.kind in DENSE):
            first.append(step)
        else:
            behind.append(step)
            passed.add(step)
    return Chain(first, steps, behind, _common(steps, body))


def _common(steps: Sequence[Step], body: Body) -> int:
    """Return the number whose divisors the blocks can be."""
    common, cut, written = 0, dict[str, bool](), _written(steps)
    for step in steps:
        rule = rule_of(step, body.tensors)
        assert rule is not None
        common = gcd(common, divisor(step, rule, body.tensors))
        for name, is_cut in roles(step, rule).items():
            if cut.setdefault(name, is_cut) != is_cut or (not is_cut and name in written):
                return 1
    return common
