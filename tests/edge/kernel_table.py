"""One case for every kernel: of each family of operations its `kernel_cases...` file."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from . import kernel_cases, kernel_cases_activations, kernel_cases_shapes, kernel_cases_tokens
from .kernel_cases import Array, Case

FAMILIES = (kernel_cases, kernel_cases_activations, kernel_cases_shapes, kernel_cases_tokens)


def case_table(dtype: DTypeLike) -> dict[str, Case]:
    """Return one case per kernel, with every optional input and output present."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(dtype)

    groups = [make(normal) for family in FAMILIES for make in family.MAKERS]
    return {case.kind: case for group in groups for case in group}
