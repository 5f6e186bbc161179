"""Run native kernels on arrays that end (or start) at a page the process may not touch; a crash is a failure.

python -m ... VARIANT: prints how many calls were made.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence

import numpy as np
from edge_adapt.edge import native

from .kernel_cases import Array
from .kernel_table import case_table
from .native_calls import single
from .test_native_conv import NAMED, cases

PAGE = mmap.PAGESIZE
NO_ACCESS = 0
_libc = ctypes.CDLL(None, use_errno=True)
_held: list[mmap.mmap] = []


def fenced(array: Array, at_end: bool) -> Array:
    """Return a copy between two pages without access, its last or first byte next to one."""
    pages = -(-max(array.nbytes, 1) // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    _held.append(memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for fence in (address, address + (pages + 1) * PAGE):
        if _libc.mprotect(ctypes.c_void_p(fence), PAGE, NO_ACCESS):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE + (pages * PAGE - array.nbytes if at_end else 0)
    copy = np.ndarray(array.shape, array.dtype, buffer=memory, offset=offset)
    copy[...] = array
    return copy


def run_fenced(
    library: native.Library, kind: str, arrays: Sequence[Sequence[Array | None]], attrs: dict[str, object]
) -> None:
    """Run one call with every array and the workspace fenced, at their ends and at their starts."""
    singles = [[single(a) for a in side] for side in arrays]
    shapes = [[None if a is None else a.shape for a in side] for side in singles]
    for threads in (1, 2):
        size = library.workspace_bytes(kind, shapes[0], shapes[1], attrs, threads)
        for at_end in (True, False):
            held = [[None if a is None else fenced(a, at_end) for a in side] for side in singles]
            workspace = fenced(np.zeros(size, np.uint8), at_end)
            library.run(kind, held[0], held[1], attrs, workspace, threads)


def main(variant: str) -> None:
    """Run all cases."""
    library, count = native.load(variant), 0
    table = case_table(np.float32)
    for kind in library.codes:
        case = table[kind]
        run_fenced(library, kind, (case.inputs, case.outputs), case.attrs)
        count += 1
    for problem in NAMED.values():
        for kind, inputs, outputs in cases(problem):
            run_fenced(library, kind, (inputs, outputs), problem.attrs)
            count += 1
    print(count)


if __name__ == "__main__":
    main(sys.argv[1])
