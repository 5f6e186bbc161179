"""Facts about this machine that matter to adaptation, and what to do about each problem."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import features

from .engines import default_engine, installed_engines
from .measure import PeakMeter
from .native import available, best, built
from .units import format_bytes

PACKAGES = ("edge-adapt", "numpy", "click", "pillow", "tqdm")
THREAD_VARIABLE = "OPENBLAS_NUM_THREADS"
LEAST_MEMORY_BYTES = 64 << 20


def facts(
    environment: Mapping[str, str] = os.environ, meminfo: Path = Path("/proc/meminfo")
) -> dict[str, Any]:
    """Return what was found; bytes are null where the system does not tell."""
    with PeakMeter() as meter:
        pass
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "byte_order": sys.byteorder,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "blas": _blas(),
        "blas_threads": environment.get(THREAD_VARIABLE),
        "engines": installed_engines(),
        "default_engine": default_engine(),
        "native_in_use": best().instruction_set if available() else None,
        "native_built": sorted(built()),
        "peaks_measurable": meter.peak_bytes is not None,
        "jpeg": features.check("jpg"),
        "available_bytes": _available_bytes(meminfo),
    }


def problems(found: Mapping[str, Any]) -> list[str]:
    """Return one line for each problem: what it is and what to do."""
    lines = []
    if not found["peaks_measurable"]:
        lines.append(
            "peak memory cannot be measured (reported as null): run on Linux with a writable"
            " /proc/self/clear_refs; plans are not affected"
        )
    if found["native_in_use"] is None:
        lines.append(
            "the native engine was not compiled for this machine: the reference engine is in use, which is slower;"
            " install gcc or clang, then edge-adapt again (pip install --force-reinstall --no-deps edge-adapt)"
        )
    if not found["jpeg"]:
        lines.append("Pillow has no JPEG decoder: install libjpeg and pillow again, or use PNG files")
    if found["byte_order"] != "little":
        lines.append("this machine is big-endian, bundles are little-endian: use another machine")
    if found["available_bytes"] is not None and found["available_bytes"] < LEAST_MEMORY_BYTES:
        lines.append(f"only {format_bytes(found['available_bytes'])} of memory are free: stop other programs")
    return lines


def notes(found: Mapping[str, Any]) -> list[str]:
    """Return one line for each thing that is good to know and no problem."""
    if found["blas_threads"] == "1":
        return []
    return [
        f"{THREAD_VARIABLE} is {found['blas_threads'] or 'not set'}: edge-adapt sets it itself; set it to 1 before"
        " Python starts when you use the Python API, or NumPy's products take memory outside the plan"
    ]


def _blas() -> str:
    config = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"] if isinstance(config, dict) else {}
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _available_bytes(meminfo: Path) -> int | None:
    if not meminfo.is_file():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
