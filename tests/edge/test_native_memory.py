"""The native engine stays within its plan: resident memory of a fresh process, and the arena."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from edge_adapt.edge.bundle import write_tensors

from .measured_native import NET
from .native_plans import needs_native
from .programs import conv_program, random_weights

pytestmark = needs_native
MIB = 2**20
ROOT = Path(__file__).resolve().parents[2]
FROZEN = {"nothing": "", "block 1": "conv1,norm1", "all but the head": "conv1,norm1,conv2,norm2,conv3,norm3,conv4,norm4"}  # fmt: skip # noqa: E501
CHOICES: dict[str, tuple[int, dict[str, Any]]] = {
    "samples one by one": (1, {"micro_batch": 1}),
    "whole batch": (2, {"micro_batch": 25}),
    "sparse": (1, {"micro_batch": 5, "storage": "sparse"}),
    "in tiles": (2, {"micro_batch": 1, "tiling": "convs"}),
    "cached suffix": (2, {"micro_batch": 1, "schedule": "cached suffix", "tiling": "convs"}),
}


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    write_tensors(file, random_weights(conv_program(NET), step_size=0.01).tensors)
    return file


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_a_fresh_process_stays_within_its_plan(
    choice: tuple[int, dict[str, Any]], frozen: str, weights_file: Path
) -> None:
    module = f"{__package__}.measured_native"
    command = [sys.executable, "-m", module, str(choice[0]), json.dumps(choice[1]), frozen, str(weights_file)]
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **one_thread}, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["measured_dynamic_bytes"] <= figures["planned_dynamic_bytes"]
    assert figures["measured_peak_bytes"] <= figures["planned_peak_bytes"] + 2 * MIB
    assert figures["measured_peak_bytes"] >= figures["planned_dynamic_bytes"]  # the meter sees the arena
    assert len(figures["losses"]) == 2
