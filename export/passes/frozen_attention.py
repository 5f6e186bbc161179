"""Drop the attention of layers whose step sizes are zero in every step: nothing ever reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...edge.program import Op, Program
from .contract import demand


@dataclass(frozen=True)
class DropFrozenAttention:
    """Remove ChannelAttention operations, and their parameters, of layers that are never updated.

    Attributes:
        updated: names of the layers that are updated in at least one step.
    """

    updated: frozenset[str]

    def requires(self, program: Program) -> None:
        """Every updated layer exists."""
        unknown = sorted(self.updated - {layer.name for layer in program.layers})
        demand(not unknown, f"unknown layers: {unknown}")

    def call(self, program: Program) -> Program:
        """Return the program without them; the frozen layers' gradients are then not scaled."""
        doomed = [op for op in program.ops(("attention",)) if op.layer not in self.updated]
        gone = {name for op in doomed for name in (*op.inputs[1:], *op.outputs) if name}

        def unscaled(op: Op) -> Op:
            return replace(op, inputs=tuple("" if name in gone else name for name in op.inputs))

        sections = {
            name: tuple(unscaled(op) for op in ops if op not in doomed)
            for name, ops in program.sections.items()
        }
        tensors = {name: tensor for name, tensor in program.tensors.items() if name not in gone}
        return replace(program, sections=sections, tensors=tensors)

    def ensures(self, program: Program) -> None:
        """No attention of a frozen layer is left, nor a parameter of one."""
        left = sorted(op.layer for op in program.ops(("attention",)) if op.layer not in self.updated)
        demand(not left, f"attention of frozen layers remains: {left}")
        read = {name for op in program.ops() for name in op.inputs}
        unread = sorted(t.name for t in program.with_role("attention-param") if t.name not in read)
        demand(not unread, f"attention parameters that nothing reads: {unread}")
