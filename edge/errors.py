"""The errors the device part raises on purpose; each carries the exit code the command line returns.

Messages are one line: what, where, expected, got, what to do next.
"""

from __future__ import annotations


class EdgeAdaptError(Exception):
    """Something the user can act on; printed as one line, without a traceback."""

    exit_code = 1


class UsageError(EdgeAdaptError):
    """An argument that cannot mean anything (a size without a unit we know, a negative count)."""

    exit_code = 2


class BudgetError(EdgeAdaptError):
    """No plan fits the budget.

    Attributes:
        smallest_bytes: the smallest budget, in bytes, that some plan meets (None where none exists).
    """

    exit_code = 3

    def __init__(self, message: str, smallest_bytes: int | None = None) -> None:
        super().__init__(message)
        self.smallest_bytes = smallest_bytes


class BundleError(EdgeAdaptError):
    """A bundle or an adapted model that is incomplete, altered, or of a format we do not know."""

    exit_code = 4


class SupportError(EdgeAdaptError):
    """Support or query data that cannot be used."""

    exit_code = 5
