"""Memory outside the arena: it is there for the whole adaptation."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass

from ..losses import answer_tensors
from ..lower.table import Lowered
from ..program import Program

PER_BATCH = ("sample_weight", "class_mask")


@dataclass(frozen=True)
class StaticBytes:
    """Bytes by term.

    Attributes:
        weights: every parameter once (frozen ones are mapped from the file, updated ones are read into
            private copies) and the step sizes.
        program: the lowered step table, as `table_bytes` measures it.
        attention: attention parameters that some step reads.
        input: the support set as it is kept (uint8 pixels, float32 arrays) with its labels or targets, one
            micro-batch of these and of sample weights, and the class mask. The papers count the samples as
            static memory, too.
    """

    weights: int
    program: int
    attention: int
    input: int

    @property
    def total(self) -> int:
        """The sum."""
        return sum(self.terms().values())

    def terms(self) -> dict[str, int]:
        """Return the terms by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def static_bytes(
    program: Program, lowered: Lowered, sample_bytes: int | None, step_table_bytes: int
) -> StaticBytes:
    """Add up what is outside the arena; `sample_bytes` None is one byte per element of an input."""
    if sample_bytes is None:
        images = program.tensors[program.inputs["images"]]
        sample_bytes = math.prod(int(axis) for axis in images.shape[1:])
    used = {name for one in lowered.programs for name in one.values}
    attention = (t for t in program.with_role("attention-param") if t.name in used)
    weights = (*program.with_role("param"), *program.with_role("step-size"))
    answers = sum(tensor.size_bytes(1) for tensor in answer_tensors(program).values())
    inputs = (program.tensors[program.inputs[part]] for part in PER_BATCH if part in program.inputs)
    per_batch = sum(tensor.size_bytes(lowered.micro_batch) for tensor in inputs)
    return StaticBytes(
        weights=sum(tensor.size_bytes(1) for tensor in weights),
        program=step_table_bytes,
        attention=sum(tensor.size_bytes(1) for tensor in attention),
        input=lowered.samples * (sample_bytes + answers) + lowered.micro_batch * answers + per_batch,
    )


def table_bytes(lowered: Lowered) -> int:
    """Return the bytes of all Python objects of the step table, each counted once (`sys.getsizeof`)."""
    seen: set[int] = set()
    pending: list[object] = [lowered]
    total = 0
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        if isinstance(item, Mapping):
            pending.extend((*item.keys(), *item.values()))
        elif isinstance(item, (tuple, list)):
            pending.extend(item)
        elif is_dataclass(item):
            pending.extend(getattr(item, field.name) for field in fields(item))
            pending.append(getattr(item, "__dict__", None))
    return total
