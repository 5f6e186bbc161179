"""Lowering: program + layer masks + choice -> flat step programs with buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import BundleError
from ..program import Program
from .cached_suffix import split
from .choice import CACHED_SUFFIX, FLOAT_BITS, LEAN, Choice
from .early_updates import with_early_updates
from .order import PARAMETER_GRADIENTS, Ordered, forward_order, training_order
from .outline import Mask, Outline
from .quantise import with_packed_caches, with_packed_maps
from .recompute import with_recomputation
from .sizing import size
from .sparse import sparse_storage, with_caps
from .table import Cache, Lowered, Step, StepProgram, Value
from .target import REFERENCE, Target

Caps = Mapping[str, int]


def lower(
    program: Program,
    updated: Sequence[Mask],
    samples: int,
    choice: Choice,
    caps: Sequence[Caps] | None = None,
    target: Target = REFERENCE,
) -> Lowered:
    """Lower an adaptation.

    Args:
        program: the bundle's program.
        updated: per gradient step, per layer (in `program.layers` order): whether it is updated.
        samples: support samples.
        choice: how it shall run.
        caps: per gradient step, forward attention's output name to a cap below the program's; None: none.
        target: the engine that will run it.

    Raises:
        BundleError: a parameter gradient that no gradient operation writes.
    """
    keys, order = distinct(updated, caps)
    if choice.schedule == CACHED_SUFFIX:
        outlines = [outline(program, mask, "dense", dict(cap)) for mask, cap in keys]
        return _with_prefix(program, outlines, order, samples, choice, target)
    outlines = [outline(program, mask, choice.storage, dict(cap)) for mask, cap in keys]
    sized = [
        size(_with_storage(one, choice), samples, choice.micro_batch, choice, target) for one in outlines
    ]
    return Lowered(_shared(sized), order, samples, choice)


def _with_prefix(
    program: Program,
    outlines: Sequence[Outline],
    order: tuple[int, ...],
    samples: int,
    choice: Choice,
    target: Target,
) -> Lowered:
    """Lower to a prefix, where there is one, and suffixes over all samples with their updates inside."""
    prefix, suffixes = split(program, outlines)
    if choice.cache_bits < FLOAT_BITS:
        prefix, suffixes = with_packed_caches(prefix, suffixes, choice.cache_bits)
    if choice.storage == "sparse":
        suffixes = [_with_sparse(program, one) for one in suffixes]
    suffixes = [with_early_updates(_with_storage(one, choice), samples) for one in suffixes]
    caches = tuple(Cache(name, prefix.tensors[name].size_bytes(samples)) for name in sorted(prefix.cached))
    fronts = [size(prefix, samples, choice.micro_batch, choice, target)] if prefix.ordered.ops else []
    sized = _shared([*fronts, *(size(one, samples, samples, choice, target) for one in suffixes)])
    front = sized[0] if fronts else None
    return Lowered(sized[len(fronts) :], order, samples, choice, front, caches)


def lower_predict(program: Program, micro_batch: int, target: Target = REFERENCE) -> Lowered:
    """Lower the forward pass to `logits`."""
    return lower_forward(program, "logits", micro_batch, target)


def lower_forward(
    program: Program, output: str, micro_batch: int, target: Target = REFERENCE, tiling: str = LEAN
) -> Lowered:
    """Lower the forward pass to one of the program's outputs, named as in `program.outputs`."""
    ordered = forward_order(program, output)
    outputs = {output: program.outputs[output]}
    mask = (False,) * len(program.layers)
    forward = Outline(mask, ordered, program.tensors, program.inputs["images"], (), outputs)
    choice = Choice(micro_batch, tiling=tiling)
    return Lowered((size(forward, micro_batch, micro_batch, choice, target),), (0,), micro_batch, choice)


def distinct(
    updated: Sequence[Mask], caps: Sequence[Caps] | None
) -> tuple[list[tuple[Mask, tuple[tuple[str, int], ...]]], tuple[int, ...]]:
    """Return the distinct (mask, caps) in order of appearance, and for every gradient step its position."""
    per_step = caps or [{}] * len(updated)
    wanted = [(mask, tuple(sorted(cap.items()))) for mask, cap in zip(updated, per_step, strict=True)]
    keys = list(dict.fromkeys(wanted))
    return keys, tuple(keys.index(key) for key in wanted)


def outline(program: Program, mask: Mask, storage: str, caps: Caps) -> Outline:
    """Drop dead code, order, cap and choose the storage for one gradient step."""
    names = {layer.name for layer, on in zip(program.layers, mask, strict=True) if on}
    ordered = with_caps(training_order(program, names), caps)
    accumulators = tuple(grad for layer in program.layers if layer.name in names for grad in layer.grads)
    _check_accumulators(ordered, accumulators)
    outputs = {"loss": program.outputs["loss"]}
    dense = Outline(mask, ordered, program.tensors, program.inputs["images"], accumulators, outputs)
    return _with_sparse(program, dense) if storage == "sparse" else dense


def _with_sparse(program: Program, one: Outline) -> Outline:
    """Keep only attended channels where that is smaller and nothing else needs the others."""
    ordered, added = sparse_storage(program, one.ordered)
    return replace(one, ordered=ordered, tensors={**one.tensors, **added})


def _with_storage(one: Outline, choice: Choice) -> Outline:
    """Decide what is kept for the backward pass."""
    if choice.recompute:
        one = with_recomputation(one)
    return with_packed_maps(one, choice.saved_bits) if choice.saved_bits < FLOAT_BITS else one


def _shared(programs: Sequence[StepProgram]) -> tuple[StepProgram, ...]:
    """Let equal steps and values of different step programs be one object: the table stays small."""
    steps: dict[str, Step] = {}
    values: dict[Value, Value] = {}
    return tuple(
        replace(
            one,
            steps=tuple(steps.setdefault(repr(step), step) for step in one.steps),
            values={name: values.setdefault(value, value) for name, value in one.values.items()},
        )
        for one in programs
    )


def _check_accumulators(ordered: Ordered, accumulators: Sequence[str]) -> None:
    written = {name for op in ordered.ops if op.kind in PARAMETER_GRADIENTS for name in op.outputs}
    for name in accumulators:
        if name not in written:
            raise BundleError(
                f"program: {name!r} is not written by a parameter gradient operation; export the bundle again"
            )
