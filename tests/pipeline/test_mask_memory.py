"""The arena that meta-trained step sizes need at 84 pixels, as benchmarks/mask_memory.py measures it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import default_engine

from ..conftest import benchmark_module

benchmark_module("machine")  # which the next one imports
memory = benchmark_module("mask_memory")


@pytest.mark.parametrize("path", sorted(memory.MASKS.glob("*.json")), ids=lambda path: path.stem)
def test_the_goal_is_met_without_freezing_more(path: Path, tmp_path: Path) -> None:
    if default_engine() != "native":
        pytest.skip("the native kernels are not built here")
    mask = json.loads(path.read_text())
    model = mask["model"]
    budget, _ = memory.BUDGETS[model["backbone"]]
    row = memory.measured(
        Bundle.open(memory.exported(mask, tmp_path / "bundle")), model["samples"], budget, "native"
    )
    assert row["dynamic_bytes"] is not None
    assert row["measured_dynamic_bytes"] <= row["dynamic_bytes"] <= budget
