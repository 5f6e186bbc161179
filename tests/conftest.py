"""What all tests share: Ctrl-C that works, and environments with other runtimes."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def benchmark_module(name: str) -> ModuleType:
    """Load a file of benchmarks/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environments = benchmark_module("environments")


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Let Ctrl-C reach the tests' processes also where the suite runs in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def old_onnxruntime(request: pytest.FixtureRequest) -> Path:
    """Python of an environment with numpy and onnxruntime 1.19.2; skips where pip cannot make one."""
    return environment(request, "onnxruntime", (f"onnxruntime=={environments.ORT_VERSION}", "numpy"))


@pytest.fixture(scope="session")
def ort_training(request: pytest.FixtureRequest) -> Path:
    """Python of an environment like this one, but with onnxruntime-training for onnxruntime.

    `EDGE_ADAPT_ORT_TRAINING` names one that exists; else one is made, and tests skip where pip cannot make it.
    """
    if chosen := os.environ.get("EDGE_ADAPT_ORT_TRAINING"):
        return Path(chosen)
    return environment(request, "onnxruntime-training", environments.ORT_TRAINING, shared=True)


def environment(
    request: pytest.FixtureRequest, name: str, packages: tuple[str, ...], *, shared: bool = False
) -> Path:
    """Python of a virtual environment kept in pytest's cache."""
    version = f"{environments.ORT_VERSION}-{sys.version_info.major}{sys.version_info.minor}"
    home = request.config.cache.mkdir(f"{name}-{version}")
    try:
        return environments.ort_environment(home, packages, shared=shared)
    except environments.EnvironmentFailed as error:
        pytest.skip(str(error))
