"""What all tests share: Ctrl-C that works, and environments with other runtimes."""

from __future__ import annotations

import os
import signal
import site
import subprocess
import sys
from pathlib import Path

import pytest

ORT_VERSION = "1.19.2"
SHARE = """
import site, sys
from pathlib import Path
lines = "".join(f"import site; site.addsitedir({path!r})\\n" for path in sys.argv[1:])
Path(site.getsitepackages()[0], "zz_shared.pth").write_text(lines)
"""


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Let Ctrl-C reach the tests' processes also where the suite runs in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def old_onnxruntime(request: pytest.FixtureRequest) -> Path:
    """Python of an environment with numpy and onnxruntime 1.19.2; skips where pip cannot make one."""
    return environment(request, "onnxruntime", [f"onnxruntime=={ORT_VERSION}", "numpy"])


@pytest.fixture(scope="session")
def ort_training(request: pytest.FixtureRequest) -> Path:
    """Python of an environment like this one, but with onnxruntime-training for onnxruntime.

    `EDGE_ADAPT_ORT_TRAINING` names one that exists; else one is made, and tests skip where pip cannot make it.
    Torch, NumPy, ONNX and edge-adapt are this environment's, seen through a .pth file after its own packages.
    """
    if chosen := os.environ.get("EDGE_ADAPT_ORT_TRAINING"):
        return Path(chosen)
    packages = ["--no-deps", f"onnxruntime-training-cpu=={ORT_VERSION}", "flatbuffers", "packaging"]
    return environment(request, "onnxruntime-training", packages, shared=True)


def environment(
    request: pytest.FixtureRequest, name: str, packages: list[str], *, shared: bool = False
) -> Path:
    """Python of a virtual environment kept in pytest's cache; `shared`: it also sees this one's packages."""
    if sys.version_info >= (3, 13):
        pytest.skip(f"{name} {ORT_VERSION} has no wheel for Python 3.13")
    home = request.config.cache.mkdir(
        f"{name}-{ORT_VERSION}-{sys.version_info.major}{sys.version_info.minor}"
    )
    python = home / "bin" / "python"
    check = [str(python), "-c", f"import onnxruntime as o; assert o.get_version_string() == {ORT_VERSION!r}"]
    if python.exists() and subprocess.run(check, capture_output=True, check=False).returncode == 0:
        return python
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [str(python), "-m", "pip", "install", "--quiet", *packages],
        *([[str(python), "-c", SHARE, *site.getsitepackages()]] if shared else []),
        check,
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no environment with {name} {ORT_VERSION}: {done.stderr.strip()[-200:]}")
    return python
