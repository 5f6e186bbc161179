"""Checking and running step tables: one call of the library for all steps of a phase."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence

from ..errors import EdgeAdaptError
from ..lower.table import StepProgram
from .library import TOO_MANY_CHANNELS, Library
from .records import AFTER, Report, Span, TableRecord
from .table import StepTable, value_names

INTERRUPTED, NOT_FINITE = 3, 4
FAULTS: Mapping[int, str] = {
    16: "code {found} is no operation",
    17: "operand {found} of at most {expected}",
    18: "shape of {value}: {found}, expected {expected}",
    19: "{value} needs {found} bytes, there are {expected}",
    20: "{value} lies at {found}, outside the arena or not on a multiple of its elements (bound {expected})",
    21: "the workspace does not fit: {found}, expected {expected}",
    22: "{value} is at {found} with {expected} bytes, but its buffer is not there at this time",
    23: "{value} lies across another operand, {expected} bytes from its first",
    24: "buffers {found} and {expected} share bytes",
    25: "slices that do not fit together: {found}, {expected}",
}


class StepTableError(EdgeAdaptError):
    """A step table that must not be run: the plan is damaged, or planning has a bug."""


class Executor:
    """Runs step tables with one library."""

    def __init__(self, library: Library) -> None:
        self._execute = library.function("ea_execute", ctypes.c_int32)
        self._check = library.function("ea_check", ctypes.c_int32)
        self._execute.argtypes = [
            ctypes.POINTER(TableRecord), ctypes.c_int32, ctypes.c_int32, ctypes.c_int32, AFTER, ctypes.c_int64,
            ctypes.POINTER(Report),
        ]  # fmt: skip
        self._check.argtypes = [
            ctypes.POINTER(TableRecord), ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(ctypes.c_int32),
            ctypes.POINTER(Span), ctypes.c_int32, ctypes.POINTER(Report),
        ]  # fmt: skip

    def check(
        self, table: StepTable, arena: int, arena_bytes: int, homes: Sequence[int], spans: Sequence[Span]
    ) -> None:
        """Raise StepTableError, naming the step, unless nothing in the table can touch memory it may not.

        Args:
            table: placed.
            arena: address.
            arena_bytes: its size.
            homes: for every value of the program the number of its buffer, -1 outside the arena.
            spans: of every buffer, workspaces included.
        """
        report = Report()
        count = table.record.value_count
        status = self._check(
            ctypes.byref(table.record),
            arena,
            arena_bytes,
            (ctypes.c_int32 * count)(*homes, *[-1] * (count - len(homes))),
            (Span * len(spans))(*spans),
            len(spans),
            ctypes.byref(report),
        )
        if status:
            raise StepTableError(_fault(table.program, status, report))

    def execute(
        self,
        table: StepTable,
        first: int,
        last: int,
        row: int,
        after: Callable[[int], int] | None,
        interval_nanoseconds: int = 0,
    ) -> tuple[int, int, str]:
        """Run steps `first` to `last` - 1.

        Args:
            table: placed and checked.
            first: step.
            last: step.
            row: of the step sizes.
            after: called with a step's index after it, must not raise; stops where it does not return 0.
            interval_nanoseconds: least time between two such calls.

        Returns:
            0 or what stopped it (`INTERRUPTED`, `NOT_FINITE`), the step, and the name of the bad gradient.

        Raises:
            ValueError: `SelectChannels` met more channels than its result has slots.
        """
        report = Report()
        told = AFTER() if after is None else AFTER(after)
        status = self._execute(
            ctypes.byref(table.record), first, last, row, told, interval_nanoseconds, ctypes.byref(report)
        )
        if status == TOO_MANY_CHANNELS:
            raise ValueError(f"step {report.step}: a sample keeps more channels than there is room for")
        name = value_names(table.program)[report.value] if status == NOT_FINITE else ""
        return status, report.step, name


def _fault(program: StepProgram, status: int, report: Report) -> str:
    names = value_names(program)
    value = repr(names[report.value]) if report.value >= 0 else "a value"
    kind = program.steps[report.step].kind if 0 <= report.step < len(program.steps) else "program"
    what = FAULTS[status].format(value=value, found=report.found, expected=report.expected)
    return f"step {report.step} ({kind}): {what}; plan again, and report this if it stays"
