"""The program's inputs besides the samples, as every engine gives them."""

from __future__ import annotations

import numpy as np

from ..program import Program, Tensor
from .base import Array

OF_ANY_LOSS = ("images", "sample_weight")


def answer_tensors(program: Program) -> dict[str, Tensor]:
    """Return by input part what the loss reads of every sample: labels, targets, actions and advantages."""
    tensors = {part: program.tensors[name] for part, name in program.inputs.items()}
    return {p: tensor for p, tensor in tensors.items() if tensor.batched and p not in OF_ANY_LOSS}


def class_mask(program: Program, classes: int) -> dict[str, Array]:
    """Return by tensor name 1 for the classes in use and 0 for the head's other outputs; {} without classes."""
    if "class_mask" not in program.inputs:
        return {}
    tensor = program.tensors[program.inputs["class_mask"]]
    mask = np.zeros(tensor.concrete(1), np.float32)
    mask[:classes] = 1
    return {tensor.name: mask}
