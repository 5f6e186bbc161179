"""Reverse-mode differentiation of a program: forward section in, a whole adaptation out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..edge.program import Op, Program, Tensor
from .losses import DEFAULT, LOSSES, Loss
from .ops import RULES
from .passes import AssignRoles, apply
from .tape import LayerAttention, Tape


def differentiate(
    forward: Program, attention: Mapping[str, LayerAttention], steps: int, loss: Loss = LOSSES[DEFAULT]
) -> Program:
    """Add the loss, backward, attention and update sections.

    Args:
        forward: a program with a forward section, its layers, and `logits` among its outputs.
        attention: by layer name; layers without attention are absent.
        steps: K, rows of the step-size table.
        loss: what is minimised; `logits` are its outputs, whatever they mean to it.

    Returns:
        A program whose every layer has a gradient `grad::PARAM` and an update `updated::PARAM` per parameter.

    Raises:
        ExportError: the outputs are not what the loss takes.
    """
    last, added = loss.operation(forward)
    tensors = {**forward.tensors, **{tensor.name: tensor for tensor in added}}
    ops = (*forward.sections["forward"], last)
    tape = Tape(tensors, _depending(ops, forward), attention, _readers(ops))
    for op in reversed([op for op in ops if tape.wanted.intersection(op.outputs)]):
        rule = RULES[op.kind]
        if rule.gradient is None:
            raise ValueError(f"{op.kind} has no gradient rule")
        rule.gradient(tape, op)
    updates = _add_updates(tensors, forward, steps)
    program = replace(
        forward,
        tensors=tensors,
        sections={
            **forward.sections,
            "loss": (last,),
            "backward": tuple(tape.backward),
            "attention": tuple(tape.attending),
            "update": tuple(updates),
        },
        inputs={**forward.inputs, **{tensor.name: tensor.name for tensor in added if tensor.role == "input"}},
        outputs={**forward.outputs, "loss": last.outputs[0]},
        steps=steps,
    )
    return apply(AssignRoles(), program).program


def _depending(ops: Sequence[Op], program: Program) -> frozenset[str]:
    """Values that depend on a layer's parameter: only these have a gradient that anyone reads."""
    found = {name for layer in program.layers for name in layer.params}
    for op in ops:
        if found.intersection(op.inputs):
            found.update(op.outputs)
    return frozenset(found)


def _readers(ops: Sequence[Op]) -> Counter[str]:
    return Counter(name for op in ops for name in op.inputs if name)


def _add_updates(tensors: dict[str, Tensor], program: Program, steps: int) -> list[Op]:
    tensors["alpha"] = Tensor("alpha", (steps, len(program.layers)), role="step-size")
    updates = []
    for layer in program.layers:
        for param, gradient in zip(layer.params, layer.grads, strict=True):
            name = f"updated::{param}"
            tensors[name] = Tensor(name, tensors[param].shape)
            attrs = {"layer_index": layer.index}
            updates.append(Op("SgdUpdate", (param, gradient, "alpha"), (name,), layer.name, attrs))
    return updates
