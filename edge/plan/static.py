"""Memory outside the arena: it is there for the whole adaptation."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

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
        program: the lowered step table, as the target measures it.
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
    program: Program,
    lowered: Lowered,
    sample_bytes: int | None,
    step_table_bytes: int,
    batch: int | None = None,
) -> StaticBytes:
    """Add up what is outside the arena.

    Args:
        program: the bundle's program.
        lowered: the adaptation.
        sample_bytes: what one kept sample takes; None: one byte per element of an input.
        step_table_bytes: what the step table takes.
        batch: most samples at a time; None: as lowered.
    """
    if sample_bytes is None:
        images = program.tensors[program.inputs["images"]]
        sample_bytes = math.prod(int(axis) for axis in images.shape[1:])
    used = {name for one in lowered.all_programs for name in one.values}
    attention = (t for t in program.with_role("attention-param") if t.name in used)
    weights = (*program.with_role("param"), *program.with_role("step-size"))
    answers = sum(tensor.size_bytes(1) for tensor in answer_tensors(program).values())
    inputs = (program.tensors[program.inputs[part]] for part in PER_BATCH if part in program.inputs)
    batch = batch or max(one.batch for one in lowered.all_programs)
    per_batch = sum(tensor.size_bytes(batch) for tensor in inputs)
    return StaticBytes(
        weights=sum(tensor.size_bytes(1) for tensor in weights),
        program=step_table_bytes,
        attention=sum(tensor.size_bytes(1) for tensor in attention),
        input=lowered.samples * (sample_bytes + answers) + batch * answers + per_batch,
    )
