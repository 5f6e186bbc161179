"""One really meta-trained model (a few outer steps on the glyphs), made once and shared."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_adapt.cloud import TrainedRun, train

SHORT = {
    "train.outer_steps": 6,
    "train.tasks_per_step": 2,
    "train.validate_every": 6,
    "train.validation_tasks": 4,
    "train.test_tasks": 4,
    "method.penalty": "none",
    "method.penalty_strength": 0.0,
    "task.queries": 5,
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """p-Meta with attention on 4Conv, every step size still above zero."""
    out: Path = tmp_path_factory.mktemp("pipeline") / "run"
    return train("pmeta-conv4-glyphs", out, SHORT)
