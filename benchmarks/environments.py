"""Virtual environments with another runtime than this one's, for tests and benchmarks."""

from __future__ import annotations

import fcntl
import site
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ORT_VERSION = "1.19.2"
ORT_TRAINING = (
    *("--no-deps", f"onnxruntime-training-cpu=={ORT_VERSION}"),
    *("flatbuffers==25.12.19", "packaging==26.3"),
)
SHARE = """
import site, sys
from pathlib import Path
lines = "".join(f"import site; site.addsitedir({path!r})\\n" for path in sys.argv[1:])
Path(site.getsitepackages()[0], "zz_shared.pth").write_text(lines)
"""


class EnvironmentFailed(Exception):
    """The environment could not be made; says why."""


def ort_training_environment(home: Path) -> Path:
    """Return the Python of an environment like this one, but with onnxruntime-training for onnxruntime.

    Torch, NumPy, ONNX and edge-adapt are this environment's, seen through a .pth file after its own packages.
    """
    return ort_environment(home, ORT_TRAINING, shared=True)


def ort_environment(home: Path, packages: tuple[str, ...], *, shared: bool = False) -> Path:
    """Return the Python of a virtual environment with an onnxruntime of `ORT_VERSION`, making it where it is not.

    Args:
        home: its directory.
        packages: for pip.
        shared: it also sees the packages of the environment this runs in.

    Raises:
        EnvironmentFailed: pip cannot make it (no network, no wheel for this Python).
    """
    if sys.version_info >= (3, 13):
        raise EnvironmentFailed(f"onnxruntime {ORT_VERSION} has no wheel for Python 3.13")
    with _alone(home):
        return _found_or_made(home, packages, shared)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Let one process at a time make an environment; the others wait and find it."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(home.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _found_or_made(home: Path, packages: tuple[str, ...], shared: bool) -> Path:
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
            raise EnvironmentFailed(f"{home.name}: {done.stderr.strip()[-200:]}")
    return python
