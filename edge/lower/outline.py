"""An outline: a step program before sizes, everything that does not depend on the number of samples.

The passes of lowering (sparse storage, prefix and suffix, recomputation, 8-bit storage, early updates) each turn
an outline into another one that computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..program import Op, Tensor
from .order import Ordered

Mask = tuple[bool, ...]


@dataclass(frozen=True)
class Outline:
    """A step program before sizes.

    Attributes:
        mask: which layers are updated.
        ordered: the operations in execution order, and the updates.
        tensors: the program's tensors and those that passes add.
        images: the program's input samples.
        accumulators: parameter gradients of the updated layers.
        outputs: "loss" or "logits" to tensor name.
        cached: values kept for all samples between the prefix and the suffix: outputs of the former, inputs of the
            latter.
        updates_inside: the updates are among `ordered.ops`, each behind the last reader of its parameter.
    """

    mask: Mask
    ordered: Ordered
    tensors: Mapping[str, Tensor]
    images: str
    accumulators: tuple[str, ...]
    outputs: Mapping[str, str]
    cached: frozenset[str] = frozenset()
    updates_inside: bool = False

    def saved(self) -> list[str]:
        """Return what the forward part (or the prefix) writes and the backward part reads, in order of writing."""
        boundary = self.ordered.forward
        read = {name for op in self.ordered.ops[boundary:] for name in op.inputs}
        written = [name for op in self.ordered.ops[:boundary] for name in op.outputs if name]
        return [name for name in (*sorted(self.cached), *written) if name in read]

    def parts(self) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
        """Return the operations of the forward part and those of the backward part."""
        return self.ordered.ops[: self.ordered.forward], self.ordered.ops[self.ordered.forward :]

    def with_parts(
        self, forward: Sequence[Op], backward: Sequence[Op], tensors: Mapping[str, Tensor]
    ) -> Outline:
        """Return the outline with other operations and the tensors that they name."""
        ordered = replace(self.ordered, ops=(*forward, *backward), forward=len(forward))
        return replace(self, ordered=ordered, tensors=tensors)
