"""The class mask, as every engine gives it."""

from __future__ import annotations

import numpy as np

from ..program import Program
from .base import Array


def class_mask(program: Program, classes: int) -> dict[str, Array]:
    """Return by tensor name 1 for the classes in use and 0 for the head's other outputs; {} without classes."""
    if "class_mask" not in program.inputs:
        return {}
    tensor = program.tensors[program.inputs["class_mask"]]
    mask = np.zeros(tensor.concrete(1), np.float32)
    mask[:classes] = 1
    return {tensor.name: mask}
