"""benchmarks/cloud_throughput.py: its rows; every library in it computes the same gradient."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import maml_steps

    return maml_steps


@pytest.mark.parametrize("library", ["higher", "torchopt", "torchopt-vmap"])
def test_every_library_computes_the_same_gradient(steps, library):
    pytest.importorskip(library.split("-")[0], reason="extra `bench`")
    problem = steps.Problem(28, inner_steps=2, tasks=2, shots=1, queries=1, tasks_per_chunk=2)
    batch = problem.batch(0)
    ours, theirs = steps.LIBRARIES["edge-adapt"](problem)(batch), steps.LIBRARIES[library](problem)(batch)
    whole = sum(float(value.square().sum()) for value in ours.values())
    apart = sum(float((theirs[name] - value).square().sum()) for name, value in ours.items())
    assert apart <= 1e-8 * whole, "float32: relative error 1e-4 over all parameters"


def test_rows_are_medians_over_rounds(monkeypatch, steps):
    import cloud_throughput

    measured = [
        {"seconds": [2.0, 1.0, 4.0], "cpu_seconds": [1.0], "peak_bytes": 10},
        {"seconds": [8.0], "cpu_seconds": [4.0], "peak_bytes": 30},
        {"seconds": [4.0], "cpu_seconds": [2.0], "peak_bytes": 20},
    ]
    row = cloud_throughput.row_of("higher", steps.Problem(28), 1, measured)
    assert (row["tasks_per_second"], row["peak_bytes"]) == (1.0, 20)
    assert row["rounds"] == [2.0, 8.0, 4.0]


def test_a_measurement_is_a_process_that_prints_its_figures_as_json():
    script = [sys.executable, str(BENCHMARKS / "cloud_throughput.py"), "--json", "--quick", "--device", "cpu"]
    choice = ["--library", "edge-adapt", "--image-size", "28", "--inner-steps", "1", "--tasks", "1"]
    (row,) = json.loads(subprocess.check_output([*script, *choice], text=True))
    assert {"library", "image_size", "inner_steps", "tasks_per_second", "peak_bytes"} <= row.keys()
    assert row["tasks_per_second"] > 0
    assert row["peak_bytes"] > 1e6
