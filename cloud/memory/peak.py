"""The most memory that was in use at once: of this process, or of a GPU's allocator."""

from __future__ import annotations

from pathlib import Path

import torch

from ..errors import ConfigError

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What makes the kernel count the peak anew, from what is resident now (proc(5))."""


def reset_peak(device: torch.device) -> None:
    """Count from now on.

    Raises:
        ConfigError: this system does not tell.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError as error:
        raise ConfigError(
            f"memory cannot be measured here: {CLEAR}: {error.strerror}; a Linux kernel is needed"
        ) from None


def peak_bytes(device: torch.device) -> int:
    """Peak since `reset_peak`: resident set of the process (VmHWM), or bytes of the GPU's allocator."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])
