"""From an outline to a step program: steps, tiles, lifetimes, bytes, workspaces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..program import DTYPE_BITS, Op, Tensor
from .cached_suffix import cached_views
from .choice import LEAN, Choice
from .memory import lifetimes, share, stored_shape, value_buffers, workspace_buffers
from .order import PARAMETER_GRADIENTS
from .outline import Outline
from .table import LOAD, SLICES, ZERO, Step, StepProgram, Value
from .target import Target
from .tiling import tiled
from .work import step_macs

LEAN_KINDS = ("Conv", "ConvInputGrad", "ConvWeightGrad")
OUTSIDE_ROLES = ("param", "step-size", "attention-param", "input")


def size(one: Outline, samples: int, batch: int, choice: Choice, target: Target) -> StepProgram:
    """Turn an outline into a step program for `batch` of `samples` samples at a time."""
    steps, body = _steps(one, single=batch >= samples)
    if choice.tiling == LEAN:
        steps = [_lean(step) for step in steps]
    inner = tiled(steps[body[0] : body[1]], one, batch, choice, target)
    steps = [*steps[: body[0]], *inner, *steps[body[1] :]]
    body = (body[0], body[0] + len(inner))
    steps = [_with_workspace(step, one.tensors, batch, target) for step in steps]
    inside = inside_arena(one)
    lives = lifetimes(steps, inside)
    for name in one.outputs.values():
        if name in lives:
            lives[name].last = max(lives[name].last, body[1] - 1)
    groups = share(steps, lives)
    buffers = value_buffers(groups, lives, one.tensors, _terms(one, lives), batch)
    home = {name: group[0] for group in groups for name in group}
    kept = {**dict.fromkeys(one.cached, ""), **cached_views(one)}
    named = dict.fromkeys(name for step in steps for name in (*step.inputs, *step.outputs) if name)
    values = {
        n: Value(n, one.tensors[n].shape, one.tensors[n].dtype, home.get(n, kept.get(n, "")), n in kept)
        for n in named
    }
    everything = (*buffers, *workspace_buffers(steps))
    accumulators = () if one.updates_inside else one.accumulators
    return StepProgram(
        one.mask, tuple(steps), body, values, everything, accumulators, one.outputs, batch, one.updates_inside
    )


def inside_arena(one: Outline) -> dict[str, Tensor]:
    """Return the tensors that lie in the arena and live and die within a step program, not in a cache."""
    kept = {*one.cached, *cached_views(one)}
    inside = {name: t for name, t in one.tensors.items() if t.role not in OUTSIDE_ROLES or name == one.images}
    for op in (*one.ordered.updates, *one.ordered.ops):
        if op.kind == "SgdUpdate":
            inside.pop(op.outputs[0], None)
    return {name: tensor for name, tensor in inside.items() if name not in kept}


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
    updates = () if one.updates_inside else one.ordered.updates
    epilogue = [Step(op.kind, op.inputs, op.outputs, op.attrs, op.layer) for op in updates]
    return [*prologue, *body, *epilogue], (len(prologue), len(prologue) + len(body))


def _lean(step: Step) -> Step:
    return replace(step, attrs={**step.attrs, "lean": True}) if step.kind in LEAN_KINDS else step


def _reads(one: Outline, name: str) -> bool:
    return any(name in op.inputs for op in one.ordered.ops)


def _macs(op: Op, tensors: Mapping[str, Tensor]) -> int:
    shapes = [
        [tensors[name].concrete(1) if name else () for name in names] for names in (op.inputs, op.outputs)
    ]
    return step_macs(op.kind, shapes[0], shapes[1])


def _sample_bytes(op: Op, tensors: Mapping[str, Tensor]) -> int:
    return sum(tensors[name].size_bytes(1) for name in op.outputs if name and tensors[name].batched)


def _with_workspace(step: Step, tensors: Mapping[str, Tensor], batch: int, target: Target) -> Step:
    if step.kind in (LOAD, SLICES):
        return step
    inputs, outputs = (
        [stored_shape(tensors[name], batch) if name else None for name in names]
        for names in (step.inputs, step.outputs)
    )
    needed = target.workspace_bytes(step.kind, inputs, outputs, step.attrs, target.threads)
    return replace(step, workspace_bytes=needed)


def _terms(one: Outline, lives: Mapping[str, object]) -> dict[str, str]:
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
            terms[name] = "masks" if DTYPE_BITS[one.tensors[name].dtype] < 8 else "saved"
    return terms
