"""What a kernel is: a function over given arrays and a workspace, and how large that workspace must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..program import Attr

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Sequence[Array | None]
Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Sequence[Shape | None]
Attrs: TypeAlias = Mapping[str, Attr]

ALIGNMENT = 16
BUFFER_ELEMENTS = 128  # of NumPy's buffers for broadcast operands; its default, 8192, would hide a map
STRIP_BYTES = 16 * 1024  # of a buffer that is filled again and again; 32 KiB: a fifth faster at 28 px
T = TypeVar("T")


def no_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    """Return 0: the kernel works in its outputs alone."""
    return 0


@dataclass(frozen=True)
class Kernel:
    """One operation in NumPy.

    Attributes:
        compute: `compute(inputs, outputs, attrs, workspace)`, what `run` calls.
        workspace_bytes: `workspace_bytes(input shapes, output shapes, attrs, itemsize)`: the length of the
            workspace, independent of the batch.
        in_place: output index -> input index whose memory (same first byte) the output may take. Of several
            outputs that name the same input only one may take it.
        alias: output 0 is always the same bytes as input 0 and `run` does nothing.
        accumulates: a parameter gradient: it adds to its output, which lowering zeroes before.
    """

    compute: Callable[[Arrays, Arrays, Attrs, Array], None]
    workspace_bytes: Callable[[Shapes, Shapes, Attrs, int], int] = no_workspace
    in_place: Mapping[int, int] = field(default_factory=dict)
    alias: bool = False
    accumulates: bool = False

    def run(self, inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
        """Read the inputs, write the outputs and the workspace, nothing else, and allocate nothing of size.

        Arrays are C-contiguous; an absent input or a dropped output is None. Parameter gradients are added to
        their output, every other output is overwritten. `workspace` is a 16-byte aligned uint8 array.
        """
        before = np.setbufsize(BUFFER_ELEMENTS)
        try:
            self.compute(inputs, outputs, attrs, workspace)
        finally:
            np.setbufsize(before)


class Workspace:
    """Hands out typed pieces of a workspace, in order."""

    def __init__(self, memory: Array) -> None:
        self._memory = memory
        self._offset = 0

    def take(self, count: int, dtype: DTypeLike) -> Array:
        """Return the next `count` elements, 1-D; raises ValueError where the workspace is too short."""
        size_bytes = count * np.dtype(dtype).itemsize
        piece = self._memory[self._offset : self._offset + size_bytes]
        if piece.size != size_bytes:
            raise ValueError(
                f"workspace of {self._memory.size} bytes is too short by {size_bytes - piece.size} bytes"
            )
        self._offset += aligned(size_bytes)
        return piece.view(dtype)


def aligned(size_bytes: int) -> int:
    """Round up to the alignment of a workspace piece."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT


def present(values: Sequence[T | None]) -> tuple[T, ...]:
    """Return the values, none of which may be absent; raises ValueError naming the position otherwise."""
    found = tuple(value for value in values if value is not None)
    if len(found) != len(values):
        raise ValueError(f"operand {list(values).index(None)} of {len(values)} is required but absent")
    return found


def optional(values: Sequence[T | None], position: int) -> T | None:
    """Return the value at `position`, None where it is absent or the sequence ends before it."""
    return values[position] if position < len(values) else None


def integer(attrs: Attrs, name: str) -> int:
    """Return an integer attribute; raises ValueError where it is missing or something else."""
    value = attrs.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"attribute {name!r} must be an integer, got {value!r}")
    return value


def integers(attrs: Attrs, name: str, count: int) -> list[int]:
    """Return an attribute that lists `count` integers; raises ValueError where it does not."""
    value = attrs.get(name)
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"attribute {name!r} must list {count} integers, got {value!r}")
    return value


def number(attrs: Attrs, name: str) -> float:
    """Return a numeric attribute; raises ValueError where it is missing or something else."""
    value = attrs.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"attribute {name!r} must be a number, got {value!r}")
    return float(value)
