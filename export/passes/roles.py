"""Roles of computed tensors: what is read again in the backward pass is `saved`, the rest temporary."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...edge.program import Program, Tensor
from .contract import demand

_COMPUTED = ("saved", "temporary")


@dataclass(frozen=True)
class AssignRoles:
    """Mark `saved` exactly the forward and loss values that later sections read."""

    def requires(self, program: Program) -> None:
        """Any program will do."""

    def call(self, program: Program) -> Program:
        """Return the program with the roles of computed tensors set."""
        saved = _kept_for_later(program)

        def with_role(tensor: Tensor) -> Tensor:
            if tensor.role not in _COMPUTED:
                return tensor
            return replace(tensor, role="saved" if tensor.name in saved else "temporary")

        return replace(program, tensors={name: with_role(tensor) for name, tensor in program.tensors.items()})

    def ensures(self, program: Program) -> None:
        """Computed tensors are saved if and only if a later section reads them."""
        saved = {tensor.name for tensor in program.with_role("saved")}
        demand(saved == _kept_for_later(program), "saved tensors are not those that the backward pass reads")


def _kept_for_later(program: Program) -> set[str]:
    early = {name for op in program.ops(("forward", "loss")) for name in op.outputs if name}
    late = {name for op in program.ops(("backward", "attention", "update")) for name in op.inputs}
    return early & late
