"""Feed channel selections from outside, so that engines can be compared under the same ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...edge.program import BATCH, Op, Program, Tensor
from .contract import demand

_KEEP = 5


@dataclass(frozen=True)
class RecordedSelections:
    """Give every ChannelAttention a `keep::LAYER::fw|bw` input, float (N, C) of 0/1, instead of clipping."""

    def requires(self, program: Program) -> None:
        """No attention has such an input yet."""
        given = [op.outputs[0] for op in program.ops(("attention",)) if op.inputs[_KEEP]]
        demand(not given, f"selections are recorded already for {given}")

    def call(self, program: Program) -> Program:
        """Return the program with the inputs added."""
        attention = tuple(_with_keep(op) for op in program.ops(("attention",)))
        keeps = {
            op.inputs[_KEEP]: Tensor(
                op.inputs[_KEEP], (BATCH, program.tensors[op.outputs[0]].shape[1]), role="input"
            )
            for op in attention
        }
        return replace(
            program,
            tensors={**program.tensors, **keeps},
            sections={**program.sections, "attention": attention},
            inputs={**program.inputs, **{name: name for name in keeps}},
        )

    def ensures(self, program: Program) -> None:
        """Every attention reads a recorded selection."""
        missing = [op.outputs[0] for op in program.ops(("attention",)) if not op.inputs[_KEEP]]
        demand(not missing, f"no recorded selection for {missing}")


def _with_keep(op: Op) -> Op:
    side, _, layer = op.outputs[0].partition("::")
    return replace(op, inputs=(*op.inputs[:_KEEP], f"keep::{layer}::{side}"))
