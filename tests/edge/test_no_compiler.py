"""Without a C compiler: a wheel is built, installed in a fresh environment, and adapts with the reference engine."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from .bundles import support_arrays, write_bundle, write_npz

ROOT = Path(__file__).parents[2]
NEEDED = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "cloud", "edge", "export")
MISSING = [name for name in ("pip", "setuptools") if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)} to build a wheel")


def ran(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources by a compiler that always fails."""
    source = tmp_path_factory.mktemp("source")
    skipped = shutil.ignore_patterns("*.so", "__pycache__")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, source / name)
    out = source / "dist"
    quiet = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out)
    ran(sys.executable, "-m", "pip", "wheel", *quiet, source, CC="false", CXX="false")
    (found,) = out.iterdir()
    return found


@pytest.fixture(scope="module")
def command(wheel: Path) -> Path:
    """`edge-adapt` of a fresh environment that has the wheel, and NumPy and the others from this one."""
    home = wheel.parent / "environment"
    ran(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    place = Path(ran(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (place / "others.pth").write_text(sysconfig.get_path("purelib"))
    ran(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel)
    return home / "bin" / "edge-adapt"


def test_the_wheel_has_no_compiled_part(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "edge_adapt/edge/engines/native.py" in names
    assert not any(name.endswith(".so") for name in names)


def test_doctor_says_that_the_reference_engine_is_in_use_and_how_to_get_the_fast_one(command: Path) -> None:
    facts = json.loads(ran(command, "doctor", "--json"))
    assert facts["default_engine"] == "reference"
    assert (facts["native_in_use"], facts["native_built"]) == (None, [])
    assert "native" not in facts["engines"]
    (problem,) = [line for line in facts["problems"] if "native" in line]
    assert "the reference engine is in use" in problem
    assert "install gcc or clang, then edge-adapt again" in problem


def test_an_adaptation_runs_with_the_reference_engine(command: Path, tmp_path: Path) -> None:
    images, labels = support_arrays()
    npz = write_npz(tmp_path / "support.npz", images=images, labels=labels)
    bundle = write_bundle(tmp_path / "bundle")
    report = json.loads(ran(command, "run", bundle, "--support", npz, "-o", tmp_path / "adapted", "--json"))
    assert (report["engine"], report["kept"]) == ("reference", True)
    found = json.loads(
        ran(command, "predict", tmp_path / "adapted", "--bundle", bundle, "--input", npz, "--json")
    )
    assert found["accuracy"] == report["support_accuracy"]


def test_the_native_engine_is_refused_with_what_to_do(command: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    done = subprocess.run(
        [command, "plan", bundle, "--engine", "native"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "install a C compiler, then edge-adapt again" in done.stderr
