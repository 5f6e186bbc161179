"""`edge-adapt run` keeps its promise where megabytes of weights change and are kept after every step."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from edge_adapt.export import export_bundle
from torch import nn


def test_megabytes_of_updates_cost_what_was_planned(tmp_path: Path) -> None:
    wide = OrderedDict(
        first=nn.Linear(64, 4096),
        act=nn.Tanh(),
        second=nn.Linear(4096, 256),
        out=nn.Tanh(),
        head=nn.Linear(256, 5),
    )
    module = nn.Sequential(wide)
    export_bundle(
        module, tmp_path / "b", example_input=torch.zeros(1, 64), step_size=1e-3, steps=2, samples=10
    )
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "s.npz", inputs=rng.normal(size=(10, 64)).astype(np.float32), labels=np.arange(10) % 5
    )
    tool = Path(sys.executable).with_name("edge-adapt")
    verb = ["run", tmp_path / "b", "--support", tmp_path / "s.npz", "-o", tmp_path / "a", "--json"]
    done = subprocess.run([tool, *verb], check=True, capture_output=True, text=True)
    report = json.loads(done.stdout)
    weights = sum(parameter.numel() for parameter in module.parameters()) * 4
    assert weights > 5_000_000
    assert report["planned_peak_bytes"] > 2 * weights  # private copies, and the gradients' accumulators
    assert report["measured_peak_bytes"] <= report["planned_peak_bytes"] + 2**20
    assert report["kept"] is True
