"""Memory outside the arena: it is there for the whole adaptation."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..losses import answer_tensors
from ..lower.table import Lowered, StepProgram
from ..program import Program
from .offsets import live_bytes

PER_BATCH = ("sample_weight", "class_mask")


@dataclass(frozen=True)
class StaticBytes:
    """Bytes by term.

    Attributes:
        weights: the step sizes and every parameter once (frozen ones are mapped from the file, updated ones are
            read into private copies), as far as they are in memory at a time, see `weights_bytes`.
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
    weights: int | None = None,
) -> StaticBytes:
    """Add up what is outside the arena.

    Args:
        program: the bundle's program.
        lowered: the adaptation.
        sample_bytes: what one kept sample takes; None: one byte per element of an input.
        step_table_bytes: what the step table takes.
        batch: most samples at a time; None: as lowered.
        weights: what `weights_bytes` says; None: all of them.
    """
    if sample_bytes is None:
        images = program.tensors[program.inputs["images"]]
        sample_bytes = math.prod(int(axis) for axis in images.shape[1:])
    used = {name for one in lowered.all_programs for name in one.values}
    attention = (t for t in program.with_role("attention-param") if t.name in used)
    answers = sum(tensor.size_bytes(1) for tensor in answer_tensors(program).values())
    inputs = (program.tensors[program.inputs[part]] for part in PER_BATCH if part in program.inputs)
    batch = batch or max(one.batch for one in lowered.all_programs)
    per_batch = sum(tensor.size_bytes(batch) for tensor in inputs)
    return StaticBytes(
        weights=sum(_weights(program).values()) if weights is None else weights,
        program=step_table_bytes,
        attention=sum(tensor.size_bytes(1) for tensor in attention),
        input=lowered.samples * (sample_bytes + answers) + batch * answers + per_batch,
    )


def weights_bytes(program: Program, lowered: Lowered, predict_bytes: int) -> int:
    """Return the bytes of the weights that are in memory at a time.

    A prefix only reads mapped weights, which are given back before the updated ones are copied: either phase needs
    less than all of them. The prediction that follows needs all, but then the arena is free again: what it takes
    with an arena of `predict_bytes` has to fit into what adapting takes.
    """
    size = _weights(program)
    total = sum(size.values())
    if lowered.prefix is None:
        return total
    ever = {name for one in lowered.programs for name in _updated(program, one)}
    suffix = ever.union(*(one.values for one in lowered.programs))
    phases = (sum(size[name] for name in size if name in read) for read in (lowered.prefix.values, suffix))
    live = max(live_bytes([buffer.segments for buffer in one.buffers]) for one in lowered.programs)
    adapting = live + sum(cache.bytes for cache in lowered.caches)
    return max(*phases, total - max(0, adapting - predict_bytes))


def _weights(program: Program) -> dict[str, int]:
    """Return the bytes of every parameter and of the step sizes."""
    tensors = (*program.with_role("param"), *program.with_role("step-size"))
    return {tensor.name: tensor.size_bytes(1) for tensor in tensors}


def _updated(program: Program, one: StepProgram) -> list[str]:
    """Return the parameters of the layers that a gradient step updates."""
    return [name for layer, on in zip(program.layers, one.mask, strict=True) if on for name in layer.params]
