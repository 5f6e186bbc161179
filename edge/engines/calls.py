"""One operation over arrays, run by the kernels of `edge/reference`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..lower.order import UPDATE
from ..lower.table import Step
from ..reference import KERNELS
from .base import Array


class NotFinite(Exception):
    """An update met a gradient that is not finite; parameters updated before it have changed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Call:
    """One step with its arrays."""

    step: Step
    inputs: tuple[Array | None, ...]
    outputs: tuple[Array | None, ...]
    workspace: Array

    def run(self, extra: Mapping[str, Any]) -> None:
        """Run the kernel with the step's attributes and `extra` ones.

        Raises:
            NotFinite: it is an update and its gradient is not finite; nothing was written.
        """
        run_operation(self.step, self.inputs, self.outputs, self.workspace, extra)


def run_operation(
    step: Step,
    inputs: Sequence[Array | None],
    outputs: Sequence[Array | None],
    workspace: Array,
    extra: Mapping[str, Any],
) -> None:
    """Run the kernel of a step; raises NotFinite as `Call.run` does."""
    if step.kind == UPDATE:
        _check_gradient(step.inputs[1], inputs[1])
    KERNELS[step.kind].run(inputs, outputs, {**step.attrs, **extra}, workspace)


def _check_gradient(name: str, gradient: Array | None) -> None:
    if gradient is None or not (math.isfinite(gradient.min()) and math.isfinite(gradient.max())):
        raise NotFinite(name)
