"""Kernels in C: the same operations as `edge/reference`, compiled per instruction set, called through ctypes.

`src/` is the source (`src/abi.h` is the interface), `library` finds and loads what was compiled, `attributes`
writes an operation's attributes as the kernels read them. `table` writes a step program as the executor reads it,
`executor` has it checked and run; `records` are the structs of both, `target` is what planning needs to know.
"""

from .library import InstructionSet, Library, NotBuiltError, available, best, built, load, supported

__all__ = ["InstructionSet", "Library", "NotBuiltError", "available", "best", "built", "load", "supported"]
