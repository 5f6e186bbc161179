"""What all tests share: Ctrl-C that works, and a second environment with an older onnxruntime."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

OLD_ONNXRUNTIME = "1.19.2"


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Let Ctrl-C reach the tests' processes also where the suite runs in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def old_onnxruntime(request: pytest.FixtureRequest) -> Path:
    """Python of an environment with numpy and onnxruntime 1.19.2; skips where pip cannot make one."""
    if sys.version_info >= (3, 13):
        pytest.skip(f"onnxruntime {OLD_ONNXRUNTIME} has no wheel for Python 3.13")
    home = request.config.cache.mkdir(
        f"onnxruntime-{OLD_ONNXRUNTIME}-{sys.version_info.major}{sys.version_info.minor}"
    )
    python = home / "bin" / "python"
    check = [str(python), "-c", f"import onnxruntime; assert onnxruntime.__version__ == {OLD_ONNXRUNTIME!r}"]
    if python.exists() and subprocess.run(check, capture_output=True, check=False).returncode == 0:
        return python
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [str(python), "-m", "pip", "install", "--quiet", f"onnxruntime=={OLD_ONNXRUNTIME}", "numpy"],
        check,
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no environment with onnxruntime {OLD_ONNXRUNTIME}: {done.stderr.strip()[-200:]}")
    return python
