"""Resident memory of this process, measured by the kernel (Linux); None elsewhere."""

from __future__ import annotations

from types import TracebackType


class PeakMeter:
    """Context manager: how far the resident set grew above its size at entry, at the highest.

    Attributes (all in bytes, None where the kernel does not tell):
        baseline_bytes: resident set at entry.
        process_peak_bytes: highest resident set between entry and exit.
        peak_bytes: the difference.
    """

    baseline_bytes: int | None
    process_peak_bytes: int | None
    peak_bytes: int | None

    def __enter__(self) -> PeakMeter:
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        raise NotImplementedError
