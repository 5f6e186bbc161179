"""Resident memory of this process, measured by the kernel (Linux); None elsewhere.

The kernel keeps the highest resident set (`VmHWM`) and forgets it when 5 is written to
`/proc/self/clear_refs` (proc(5)).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class PeakMeter:
    """Context manager: how far the resident set grew above its size at entry, at the highest.

    Read `peak_bytes` at any time inside, or after, the block.

    Attributes (all in bytes, None where the kernel does not tell):
        baseline_bytes: resident set at entry.
        process_peak_bytes: highest resident set since entry, as of the last `read` or the exit.
    """

    baseline_bytes: int | None = None
    process_peak_bytes: int | None = None

    @property
    def peak_bytes(self) -> int | None:
        """How far the highest resident set is above the baseline."""
        if self.baseline_bytes is None or self.process_peak_bytes is None:
            return None
        return self.process_peak_bytes - self.baseline_bytes

    def read(self) -> int | None:
        """Read the highest resident set since entry and return `peak_bytes`."""
        self.process_peak_bytes = _status_bytes("VmHWM") if self.baseline_bytes is not None else None
        return self.peak_bytes

    def __enter__(self) -> PeakMeter:
        self.baseline_bytes = _status_bytes("VmRSS") if _forget_peak() else None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.read()


def _forget_peak() -> bool:
    """Make VmHWM start again from the present resident set; return whether the kernel lets us."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int | None:
    """Return a field of /proc/self/status, which the kernel prints in kB of 1024 bytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith(f"{field}:")]
    return int(found[0][1]) * 1024 if found else None
