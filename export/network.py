"""A captured network: the forward section of a program, and the values of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..edge.program import Program

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Origin:
    """Where a learned parameter comes from: its name in the torch module, and whether it is stored transposed."""

    source: str
    transposed: bool = False


@dataclass(frozen=True)
class Network:
    """What capture and the ONNX import return.

    Attributes:
        program: forward section, layers, `logits`.
        values: every tensor of role `param`, learned or constant, float32 in the program's layout.
        origins: by learned parameter.
        notes: what was changed on the way in, one line each, for people.
    """

    program: Program
    values: Mapping[str, Array]
    origins: Mapping[str, Origin]
    notes: tuple[str, ...] = ()

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one sample's output."""
        return tuple(int(axis) for axis in self.program.tensors[self.program.outputs["logits"]].shape[1:])
