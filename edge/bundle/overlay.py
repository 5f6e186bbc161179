"""Weights with some tensors replaced: an adapted model, or an adaptation that is continued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .tensors import TensorFile


@dataclass(frozen=True)
class Overlay:
    """The tensors of `base`, except those in `changed`.

    Attributes:
        base: the bundle's weights.
        changed: replacements by name, in memory.
    """

    base: TensorFile
    changed: Mapping[str, NDArray[Any]]

    def mapped(self, name: str) -> NDArray[Any]:
        """Return a view to read: the replacement, or the file's bytes mapped in place."""
        return self.changed[name] if name in self.changed else self.base.mapped(name)

    def copy(self, name: str) -> NDArray[Any]:
        """Return an array to write to: the replacement itself (it exists only once), or a copy."""
        return self.changed[name] if name in self.changed else self.base.copy(name)

    def give_back(self) -> None:
        """Let the pages of the mapped file go; the replacements stay."""
        self.base.give_back()
