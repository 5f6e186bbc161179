"""Native kernels touch no byte outside their arrays and workspace, reads included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .native_calls import variants

ROOT = Path(__file__).resolve().parents[2]


@variants()
def test_kernels_stay_inside_arrays_that_end_at_a_forbidden_page(variant: str) -> None:
    command = [sys.executable, "-m", "tests.edge.native_fences", variant]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    assert int(done.stdout) > 100
