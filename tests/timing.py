"""How long something takes, on machines that others use as well."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def least_seconds(call: Callable[[], object], times: int = 3) -> float:
    """Processor time of the fastest of some calls; what others do on the machine only makes calls slower."""
    found = []
    for _ in range(times):
        gc.collect()
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return min(found)
