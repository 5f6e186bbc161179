"""Dead-code elimination: prediction is elimination to `logits`, a frozen layer is its dropped gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...edge.program import Op, Program
from .contract import demand
from .roles import AssignRoles


@dataclass(frozen=True)
class EliminateDeadCode:
    """Keep only what the named tensors need; outputs that nothing reads are dropped (written as "").

    Attributes:
        keep: tensor names, for example ("fc",) for prediction or gradients for a training graph.
    """

    keep: tuple[str, ...]

    def requires(self, program: Program) -> None:
        """Every tensor to keep is written by some operation."""
        written = {name for op in program.ops() for name in op.outputs}
        missing = sorted(set(self.keep) - written)
        demand(not missing, f"cannot keep {missing}: no operation writes them")

    def call(self, program: Program) -> Program:
        """Return the smaller program; its tensors, inputs and outputs are those still mentioned."""
        alive = _alive(program, set(self.keep))
        sections = {
            name: tuple(_without_dead_outputs(op, alive) for op in ops if alive.intersection(op.outputs))
            for name, ops in program.sections.items()
        }
        smaller = replace(
            program,
            tensors={name: tensor for name, tensor in program.tensors.items() if name in alive},
            sections={name: ops for name, ops in sections.items() if ops},
            inputs={part: name for part, name in program.inputs.items() if name in alive},
            outputs={part: name for part, name in program.outputs.items() if name in alive},
        )
        return AssignRoles().call(smaller)

    def ensures(self, program: Program) -> None:
        """Every output of every operation is read or kept."""
        read = {name for op in program.ops() for name in op.inputs} | set(self.keep) | {""}
        unread = sorted({name for op in program.ops() for name in op.outputs} - read)
        demand(not unread, f"dead values remain: {unread}")


def _alive(program: Program, roots: set[str]) -> set[str]:
    writers = {name: op for op in program.ops() for name in op.outputs if name}
    alive: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in alive:
            continue
        alive.add(name)
        if name in writers:
            waiting += filter(None, writers[name].inputs)
    return alive


def _without_dead_outputs(op: Op, alive: set[str]) -> Op:
    return replace(op, outputs=tuple(name if name in alive else "" for name in op.outputs))
