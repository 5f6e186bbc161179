"""What a pass is: it states what it requires, transforms, and checks what it ensures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ...edge.program import Program, check_program


class PassError(ValueError):
    """A pass was given a program it cannot work on, or broke its own promise: a defect."""


class Pass(Protocol):
    """A transformation of programs."""

    def requires(self, program: Program) -> None:
        """Raise PassError unless the program is one this pass can work on."""

    def call(self, program: Program) -> Program:
        """Return the transformed program; the given one is not changed."""

    def ensures(self, program: Program) -> None:
        """Raise PassError unless the result has what this pass promises."""


@dataclass(frozen=True)
class PassResult:
    """A transformed program, and whether it differs from what went in."""

    program: Program
    changed: bool


def apply(transform: Pass, program: Program) -> PassResult:
    """Run one pass: requires, call, ensures; the result is a well-formed program.

    Raises:
        PassError: the program does not meet the requirements, or the result not the promise.
    """
    transform.requires(program)
    result = transform.call(program)
    check_program(result)
    transform.ensures(result)
    return PassResult(result, result != program)


def demand(holds: bool, message: str) -> None:
    """Raise PassError with the message unless `holds`."""
    if not holds:
        raise PassError(message)
