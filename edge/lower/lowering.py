"""Lowering: program + layer masks + micro-batch + storage -> flat step programs with buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import BundleError
from ..program import DTYPE_BITS, Op, Program, Tensor
from ..reference import KERNELS
from .memory import lifetimes, share, stored_shape, value_buffers, workspace_buffers
from .order import PARAMETER_GRADIENTS, Ordered, prediction_order, training_order
from .sparse import sparse_storage, with_caps
from .table import LOAD, ZERO, Lowered, Step, StepProgram, Value
from .work import step_macs

OUTSIDE_ROLES = ("param", "step-size", "attention-param", "input")
ITEM_BYTES = 4
STORAGES = ("dense", "sparse")
Mask = tuple[bool, ...]
Caps = Mapping[str, int]


@dataclass(frozen=True)
class Outline:
    """A step program before sizes: everything that does not depend on the number of samples.

    Attributes:
        tensors: the program's tensors and those that sparse storage adds.
        accumulators: parameter gradients of the updated layers.
        outputs: "loss" or "logits" to tensor name.
    """

    mask: Mask
    ordered: Ordered
    tensors: Mapping[str, Tensor]
    images: str
    accumulators: tuple[str, ...]
    outputs: Mapping[str, str]


def lower(
    program: Program,
    updated: Sequence[Mask],
    samples: int,
    micro_batch: int,
    storage: str = "dense",
    caps: Sequence[Caps] | None = None,
) -> Lowered:
    """Lower an adaptation.

    Args:
        program: the bundle's program.
        updated: per gradient step, per layer (in `program.layers` order): whether it is updated.
        samples: support samples.
        micro_batch: samples per run of a step program's body.
        storage: "dense", or "sparse" to keep only attended channels where that is smaller.
        caps: per gradient step, forward attention's output name to a cap below the program's; None: none.

    Raises:
        BundleError: a parameter gradient that no gradient operation writes.
    """
    keys, order = distinct(updated, caps)
    outlines = [outline(program, mask, storage, dict(cap)) for mask, cap in keys]
    programs = _shared([size(one, samples, micro_batch) for one in outlines])
    return Lowered(programs, order, samples, micro_batch, storage)


def lower_predict(program: Program, micro_batch: int) -> Lowered:
    """Lower the forward pass to `logits`."""
    ordered = prediction_order(program)
    outputs = {"logits": program.outputs["logits"]}
    mask = (False,) * len(program.layers)
    forward = Outline(mask, ordered, program.tensors, program.inputs["images"], (), outputs)
    return Lowered((size(forward, micro_batch, micro_batch),), (0,), micro_batch, micro_batch, "dense")


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
    tensors = dict(program.tensors)
    if storage == "sparse":
        ordered, added = sparse_storage(program, ordered)
        tensors.update(added)
    accumulators = tuple(grad for layer in program.layers if layer.name in names for grad in layer.grads)
    _check_accumulators(ordered, accumulators)
    outputs = {"loss": program.outputs["loss"]}
    return Outline(mask, ordered, tensors, program.inputs["images"], accumulators, outputs)


def size(one: Outline, samples: int, micro_batch: int) -> StepProgram:
    """Turn an outline into a step program for `micro_batch` samples at a time."""
    steps, body = _steps(one, single=micro_batch >= samples)
    steps = [_with_workspace(step, one.tensors, micro_batch) for step in steps]
    inside = {name: t for name, t in one.tensors.items() if t.role not in OUTSIDE_ROLES or name == one.images}
    for op in one.ordered.updates:
        inside.pop(op.outputs[0], None)
    lives = lifetimes(steps, inside)
    for name in one.outputs.values():
        lives[name].last = max(lives[name].last, body[1] - 1)
    groups = share(steps, lives)
    terms = _terms(one, steps, lives)
    buffers = value_buffers(groups, lives, one.tensors, terms, micro_batch)
    home = {name: group[0] for group in groups for name in group}
    named = dict.fromkeys(name for step in steps for name in (*step.inputs, *step.outputs) if name)
    values = {n: Value(n, one.tensors[n].shape, one.tensors[n].dtype, home.get(n, "")) for n in named}
    everything = (*buffers, *workspace_buffers(steps))
    return StepProgram(one.mask, tuple(steps), body, values, everything, one.accumulators, one.outputs)


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


def _steps(one: Outline, single: bool) -> tuple[list[Step], tuple[int, int]]:
    """Return all steps and the body's range.

    With one micro-batch an accumulator is zeroed just before its gradient is written and needs no memory
    before; with several, all are zeroed before the first.
    """
    zeros = [Step(ZERO, (), (name,)) for name in one.accumulators]
    body = [Step(LOAD, (), (one.images,))] if _reads(one, one.images) else []
    for op in one.ordered.ops:
        if single and op.kind in PARAMETER_GRADIENTS:
            body += [zero for zero in zeros if zero.outputs[0] in op.outputs]
        macs, written = _macs(op, one.tensors), _sample_bytes(op, one.tensors)
        body.append(Step(op.kind, op.inputs, op.outputs, op.attrs, op.layer, 0, macs, written))
    prologue = [] if single else zeros
    epilogue = [Step(op.kind, op.inputs, op.outputs, op.attrs, op.layer) for op in one.ordered.updates]
    return [*prologue, *body, *epilogue], (len(prologue), len(prologue) + len(body))


def _reads(one: Outline, name: str) -> bool:
    return any(name in op.inputs for op in one.ordered.ops)


def _macs(op: Op, tensors: Mapping[str, Tensor]) -> int:
    shapes = [
        [tensors[name].concrete(1) if name else () for name in names] for names in (op.inputs, op.outputs)
    ]
    return step_macs(op.kind, shapes[0], shapes[1])


def _sample_bytes(op: Op, tensors: Mapping[str, Tensor]) -> int:
    return sum(tensors[name].size_bytes(1) for name in op.outputs if name and tensors[name].batched)


def _with_workspace(step: Step, tensors: Mapping[str, Tensor], micro_batch: int) -> Step:
    if step.kind == LOAD:
        return step
    inputs, outputs = (
        [stored_shape(tensors[name], micro_batch) if name else None for name in names]
        for names in (step.inputs, step.outputs)
    )
    needed = KERNELS[step.kind].workspace_bytes(inputs, outputs, step.attrs, ITEM_BYTES)
    return replace(step, workspace_bytes=needed)


def _terms(one: Outline, steps: Sequence[Step], lives: Mapping[str, object]) -> dict[str, str]:
    """Say what every value counts as: accumulators; masks and saved values (forward to backward); working."""
    boundary = one.ordered.forward
    written = {name for op in one.ordered.ops[:boundary] for name in op.outputs} | {one.images}
    read = {name for op in one.ordered.ops[boundary:] for name in op.inputs}
    terms = {}
    for name in lives:
        if name in one.accumulators:
            terms[name] = "accumulators"
        elif name not in written or name not in read:
            terms[name] = "working"
        else:
            terms[name] = "masks" if DTYPE_BITS[one.tensors[name].dtype] <= 8 else "saved"
    return terms


def _check_accumulators(ordered: Ordered, accumulators: Sequence[str]) -> None:
    written = {name for op in ordered.ops if op.kind in PARAMETER_GRADIENTS for name in op.outputs}
    for name in accumulators:
        if name not in written:
            raise BundleError(
                f"program: {name!r} is not written by a parameter gradient operation; export the bundle again"
            )
