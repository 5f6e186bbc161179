"""The C library is told to keep freed memory; a process of its own shows that it does."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from edge_adapt.cloud.memory.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [np.ones(1_000_000) for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

handing_back = faults()
assert keep_freed_memory()
print(handing_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt of glibc")
def test_freed_memory_that_is_kept_costs_few_page_faults() -> None:
    printed = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True)
    handing_back, keeping = map(int, printed.split())
    assert keeping < handing_back / 5
