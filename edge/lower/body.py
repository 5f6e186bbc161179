"""A body before tiling, as the search for chains looks at it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..program import Tensor
from ..reference import KERNELS
from .order import GIVEN_ROLES, UPDATE
from .outline import Outline
from .table import Step


@dataclass(frozen=True)
class Body:
    """The steps of a body and what is known of their values.

    Attributes:
        tensors: by name; tiles may be added.
        batch: most samples at a time.
        threads: of the target.
        convolutions: whether convolutions may be in chains.
        kept: values that something outside the body reads, or that lie outside the arena.
        mentions: how many steps of the body name a value.
    """

    tensors: dict[str, Tensor]
    batch: int
    threads: int
    convolutions: bool
    kept: frozenset[str]
    mentions: Mapping[str, int]

    def bytes(self, name: str) -> int:
        """Return the bytes of one sample (of a parameter: all)."""
        return self.tensors[name].size_bytes(1)


def body_of(steps: Sequence[Step], one: Outline, batch: int, threads: int, convolutions: bool) -> Body:
    """Look at a body."""
    kept = {name for name, tensor in one.tensors.items() if tensor.role in GIVEN_ROLES}
    kept.update(one.outputs.values(), one.cached, () if one.updates_inside else one.accumulators)
    kept.update(name for step in steps if step.kind == UPDATE for name in step.outputs)
    mentions = Counter(name for step in steps for name in names_of(step))
    return Body(dict(one.tensors), batch, threads, convolutions, frozenset(kept), mentions)


def names_of(step: Step) -> set[str]:
    """Return the names of a step's values."""
    return {name for name in (*step.inputs, *step.outputs) if name}


def reads(step: Step) -> set[str]:
    """Return what a step reads; a parameter gradient reads what it adds to."""
    read = {name for name in step.inputs if name}
    return read | writes(step) if step.kind in KERNELS and KERNELS[step.kind].accumulates else read


def writes(step: Step) -> set[str]:
    """Return what a step writes; an update writes its parameter."""
    written = {name for name in step.outputs if name}
    return written | {step.inputs[0]} if step.kind == UPDATE else written


@dataclass
class Passed:
    """Steps that a chain leaves behind itself, as far as their order matters."""

    read: set[str]
    written: set[str]

    def bars(self, step: Step) -> bool:
        """Whether a step cannot run before them."""
        return not (
            self.written.isdisjoint(reads(step))
            and self.read.isdisjoint(writes(step))
            and self.written.isdisjoint(writes(step))
        )

    def add(self, step: Step) -> None:
        """Leave one more behind."""
        self.read |= reads(step)
        self.written |= writes(step)
