"""Finding, choosing and loading the compiled kernels, and calling one of them on arrays."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EdgeAdaptError
from ..reference.kernel import Array, Arrays, Attrs, Shape, Shapes
from .attributes import encoded
from .records import ATTRIBUTES, INPUTS, MAX_RANK, OUTPUTS, Attribute, Call, Tensor

ABI = 3
TOO_MANY_CHANNELS = 1
HERE = Path(__file__).resolve().parent


class NotBuiltError(EdgeAdaptError):
    """The kernels were not compiled for this machine."""


@dataclass(frozen=True)
class InstructionSet:
    """A compiled variant: its name and the processor flags (as in /proc/cpuinfo) it needs."""

    name: str
    flags: frozenset[str]


INSTRUCTION_SETS: Mapping[str, tuple[InstructionSet, ...]] = {
    "x86_64": (
        InstructionSet("avx512", frozenset({"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"})),
        InstructionSet("avx2", frozenset({"avx2", "fma"})),
        InstructionSet("baseline", frozenset()),
    ),
    "aarch64": (InstructionSet("neon", frozenset()),),
}


class Library:
    """The kernels compiled for one instruction set.

    Attributes:
        instruction_set: what it was compiled for.
        codes: operation to its number.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        if self._library.ea_abi() != ABI:
            raise NotBuiltError(
                f"{path.name}: interface {self._library.ea_abi()}, expected {ABI}; install edge-adapt again"
            )
        for name in ("ea_instruction_set", "ea_operation_name"):
            getattr(self._library, name).restype = ctypes.c_char_p
        self._library.ea_workspace_bytes.restype = ctypes.c_int64
        self.instruction_set: str = self._library.ea_instruction_set().decode()
        count: int = self._library.ea_operation_count()
        self.codes = {self._library.ea_operation_name(i).decode(): i for i in range(count)}

    def function(self, name: str, result: Any) -> Any:
        """Return one of the library's functions."""
        found = getattr(self._library, name)
        found.restype = result
        return found

    def has_workspace(self, kind: str) -> bool:
        """Whether calls of an operation may need a workspace."""
        return bool(self._library.ea_has_workspace(self.codes[kind]))

    def start_threads(self, threads: int) -> None:
        """Start the helpers of calls with that many threads now, not in the first such call."""
        self._library.ea_start_threads(threads)

    def workspace_bytes(
        self, kind: str, inputs: Shapes, outputs: Shapes, attrs: Attrs, threads: int = 1
    ) -> int:
        """Return the workspace of one call, from the shapes (of packed tensors: (N, bytes)) alone."""
        call = _call(
            [_shaped(s) for s in inputs], [_shaped(s) for s in outputs], encoded(kind, attrs), threads
        )
        return int(self._library.ea_workspace_bytes(self.codes[kind], ctypes.byref(call)))

    def run(
        self, kind: str, inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array, threads: int = 1
    ) -> None:
        """Run one operation as `Kernel.run` of the reference does, on float32 arrays.

        Args:
            workspace: uint8, `workspace_bytes` long, 16-byte aligned.
            threads: how many threads to use where the operation is long enough.

        Raises:
            ValueError: `SelectChannels` met more channels than its result has slots.
        """
        call = _call([_over(a) for a in inputs], [_over(a) for a in outputs], encoded(kind, attrs), threads)
        call.workspace = workspace.ctypes.data
        if self._library.ea_run_operation(self.codes[kind], ctypes.byref(call)) == TOO_MANY_CHANNELS:
            raise ValueError(f"{kind}: a sample keeps more channels than there is room for")


def _shaped(shape: Shape | None) -> Tensor | None:
    return None if shape is None else Tensor(None, len(shape), (ctypes.c_int32 * MAX_RANK)(*shape))


def _over(array: Array | None) -> Tensor | None:
    if array is None:
        return None
    if not array.flags.c_contiguous or array.dtype == np.float64:
        raise ValueError(f"expected a C-contiguous array of at most 32-bit floats, got {array.dtype}")
    return Tensor(array.ctypes.data, array.ndim, (ctypes.c_int32 * MAX_RANK)(*array.shape), array.itemsize)


def _call(
    inputs: Sequence[Tensor | None],
    outputs: Sequence[Tensor | None],
    attrs: Sequence[int | float],
    threads: int,
) -> Call:
    row = (Attribute * ATTRIBUTES)()
    for place, value in zip(row, attrs, strict=False):
        setattr(place, "f" if isinstance(value, float) else "i", value)
    count = max(INPUTS, len(inputs))
    return Call(_pointers(inputs, count), _pointers(outputs, OUTPUTS), row, None, threads, len(inputs))


def _pointers(tensors: Sequence[Tensor | None], count: int) -> ctypes.Array[ctypes._Pointer[Tensor]]:
    found = (ctypes.POINTER(Tensor) * count)()
    for place, tensor in enumerate(tensors):
        if tensor is not None:
            found[place] = ctypes.pointer(tensor)
    return found


def built() -> dict[str, Path]:
    """Return the compiled variants by name."""
    names = {one.name for sets in INSTRUCTION_SETS.values() for one in sets}
    paths = {name: HERE / f"_{name}{EXTENSION_SUFFIXES[0]}" for name in names}
    return {name: path for name, path in paths.items() if path.is_file()}


def supported(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Return the instruction sets this machine can run, best first."""
    flags: set[str] = set()
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("flags"):
                flags.update(line.partition(":")[2].split())
                break
    return tuple(one.name for one in INSTRUCTION_SETS.get(platform.machine(), ()) if one.flags <= flags)


@cache
def load(name: str) -> Library:
    """Return the variant of that name; raises NotBuiltError where it was not compiled."""
    if name not in built():
        raise NotBuiltError(
            f"native kernels: no variant {name!r}; install a C compiler, then edge-adapt again"
        )
    return Library(built()[name])


def best() -> Library:
    """Return the best variant for this machine.

    Raises:
        NotBuiltError: none was compiled that this machine can run.
    """
    names = [name for name in supported() if name in built()]
    if not names:
        raise NotBuiltError("native kernels: not compiled; install a C compiler, then edge-adapt again")
    return load(names[0])


def available() -> bool:
    """Whether kernels were compiled that this machine can run."""
    return any(name in built() for name in supported())
