"""benchmarks/edge.py: its rows and its table; eager PyTorch in it takes the same steps as the device's engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from edge_adapt.edge.bundle import read_bundle
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.plan import search_plan
from edge_adapt.edge.verify import selftest_support
from edge_adapt.export import export_bundle

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "case", "engine", "threads", "seconds", "planned_peak_bytes", "measured_peak_bytes", "dynamic_bytes",
}  # fmt: skip
SAMPLES, STEPS = 7, 2


@pytest.fixture
def torch_engine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of that name in benchmarks/."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import torch_engine

    return torch_engine


@pytest.mark.parametrize("layers", [None, ("conv4", "norm4", "fc")])
def test_eager_torch_takes_the_same_steps(
    torch_engine: ModuleType, tmp_path: Path, layers: tuple[str, ...] | None
) -> None:
    case = torch_engine.Case("conv4", 28, layers, SAMPLES, STEPS, 0, 1, 1)
    example = torch.zeros(1, *case.shape)
    path = export_bundle(
        case.module(), tmp_path / "b", example_input=example, layers=layers, step_size=0.05, steps=STEPS
    )
    files = read_bundle(path)
    alpha, support = files.weights.copy("alpha"), selftest_support(files, SAMPLES)
    plan = search_plan(files.program, alpha, SAMPLES, STEPS, micro_batch=3)
    given = (files.program, plan, files.weights, support)
    ours, theirs = ReferenceEngine().adapt(*given), torch_engine.TorchEngine(case).adapt(*given)
    np.testing.assert_allclose(theirs.losses, ours.losses, rtol=1e-4)
    assert theirs.updated.keys() == ours.updated.keys()
    for name, value in ours.updated.items():
        assert not np.array_equal(value, files.weights.copy(name))
        np.testing.assert_allclose(theirs.updated[name], value, atol=1e-4 * np.abs(value).max())


def test_a_small_run_prints_the_promised_rows(tmp_path: Path, ort_training: Path) -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "edge.py"), "--cache", str(tmp_path / "cache")]
    options = ["--case", "conv4-all", "--threads", "1", "--rounds", "1", "--engine", "ort-training"]
    out = ["--engine", "torch", "--out", str(tmp_path / "rows.json"), "--json"]
    environment = {**os.environ, "EDGE_ADAPT_ORT_TRAINING": str(ort_training)}
    done = subprocess.run(
        [*script, *options, *out], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout)
    assert rows == json.loads((tmp_path / "rows.json").read_text())
    assert [row["engine"] for row in rows] == ["ort-training", "torch"], done.stderr
    assert all(row.keys() >= KEYS and row["case"] == "conv4-all" for row in rows)
    assert rows[0]["memory_ratio"] == 1
    assert all(row["measured_peak_bytes"] > 10_000_000 for row in rows)  # either loads more than that
