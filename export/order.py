"""Execution order of a program whose sections depend on each other."""

from __future__ import annotations

from ..edge.program import Op, Program

_PRIORITY = ("attention", "forward", "loss", "backward", "update")
_GIVEN = ("param", "step-size", "attention-param", "input")


def execution_order(program: Program) -> list[Op]:
    """Order operations by data; an attention operation runs as soon as its input exists.

    Raises:
        ValueError: an operation reads what nothing writes.
    """
    waiting = list(program.ops(_PRIORITY))
    ready = {tensor.name for tensor in program.tensors.values() if tensor.role in _GIVEN} | {""}
    done: list[Op] = []
    while waiting:
        op = next((op for op in waiting if ready.issuperset(op.inputs)), None)
        if op is None:
            raise ValueError(f"{waiting[0].kind} of layer {waiting[0].layer!r} reads what nothing writes")
        waiting.remove(op)
        done.append(op)
        ready.update(op.outputs)
    return done
