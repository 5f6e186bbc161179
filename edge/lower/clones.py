"""Values that are written again right before they are read, so that they need not be kept from the first time on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..program import Op, Tensor

BARRIERS = frozenset(("Conv", "ConvInputGrad", "Fc", "FcInputGrad", "MatMul"))  # never slice by slice
REACH = 8  # operations that readers of one clone may be apart


class Clones:
    """Puts clones in front of the operations that read them; readers close together share one.

    Attributes:
        tensors: those given and those of the clones.
    """

    def __init__(self, recipes: Mapping[str, Op], tensors: Mapping[str, Tensor]) -> None:
        """Take what writes each of the values again; it may read others of them."""
        self.tensors = dict(tensors)
        self._recipes = recipes
        self._at_hand: dict[str, tuple[str, int]] = {}

    def before_readers(self, ops: Iterable[Op]) -> list[Op]:
        """Return the operations with clones of what they read; a value that they write serves its first readers."""
        result: list[Op] = []
        self._at_hand.clear()
        for position, op in enumerate(ops):
            inputs = tuple(self._found(name, position, result) for name in op.inputs)
            result.append(replace(op, inputs=inputs))
            self._at_hand.update((name, (name, position)) for name in op.outputs if name in self._recipes)
            if op.kind in BARRIERS:
                self._at_hand.clear()
        return result

    def _found(self, name: str, position: int, result: list[Op]) -> str:
        """Return the name under which a value can be read at a position, writing it again if necessary."""
        recipe = self._recipes.get(name)
        if recipe is None:
            return name
        clone, used = self._at_hand.get(name, ("", position - REACH - 1))
        if position - used > REACH:
            inputs = tuple(self._found(source, position, result) for source in recipe.inputs)
            fresh = {output: self._fresh(output) for output in recipe.outputs if output}
            outputs = tuple(fresh.get(output, "") for output in recipe.outputs)
            result.append(replace(recipe, inputs=inputs, outputs=outputs))
            self._at_hand.update((output, (new, position)) for output, new in fresh.items())
            clone = fresh[name]
        self._at_hand[name] = (clone, position)
        return clone

    def _fresh(self, name: str) -> str:
        clone, number = f"{name}@again", 2
        while clone in self.tensors:
            clone, number = f"{name}@again{number}", number + 1
        self.tensors[clone] = replace(self.tensors[name], name=clone, role="temporary")
        return clone
