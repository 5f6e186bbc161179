"""The cost model that meta-training optimises agrees with the planner; the tables in the docs are made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.models import build_backbone
from edge_adapt.edge.cost import peak_dynamic_bytes
from edge_adapt.edge.inputs import InputSpec
from edge_adapt.edge.plan import search_plan
from edge_adapt.edge.plan.space import Fixed
from edge_adapt.edge.program import Program
from edge_adapt.export.adaptation import adaptation
from edge_adapt.export.source import Source

PLAIN = Fixed(1, "accumulate", "dense", saved_bits=32, recompute=False, tiling="maps")
ROOT = Path(__file__).parents[2]
FROZEN = {
    "conv1": ("conv1",),
    "block 1": ("conv1", "norm1"),
    "block 1 and conv2": ("conv1", "norm1", "conv2"),
    "block 1 and conv4": ("conv1", "norm1", "conv4"),
    "all but the head and norm4": ("conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "conv4"),
}


@pytest.fixture(scope="module", params=[(28, 1), (84, 3)], ids=["28 px", "84 px"])
def network(request: pytest.FixtureRequest) -> Network:
    size, channels = request.param
    return Network(build_backbone("conv4", (channels, size, size), 5, 0), (channels, size, size))


@pytest.fixture(scope="module")
def program(network: Network) -> Program:
    channels, height, width = network.sample_shape
    names = tuple(layer.name for layer in network.layers)
    spec = InputSpec(channels, height, width, (0.5,) * channels, (0.25,) * channels)
    return adaptation(Source("conv4", network.module, spec, names, np.ones((1, len(names)), np.float32)))


def planned(program: Program, updated: list[bool]) -> int:
    alpha = np.array([updated], np.float32)
    return search_plan(program, alpha, 5, 1, fixed=PLAIN).dynamic_bytes


@pytest.mark.parametrize("frozen", FROZEN.values(), ids=FROZEN)
def test_the_cost_model_predicts_the_planned_share_of_the_dense_plan(
    network: Network, program: Program, frozen: tuple[str, ...]
) -> None:
    updated = [layer.name not in frozen for layer in network.layers]
    dense = [True] * len(updated)
    predicted = peak_dynamic_bytes(network.layers, updated) / peak_dynamic_bytes(network.layers, dense)
    assert predicted == pytest.approx(planned(program, updated) / planned(program, dense), abs=0.08)


@pytest.mark.parametrize(
    "script", ["cost_model.py", "tables.py", "speed.py", "cloud_tables.py", "lite_tables.py"]
)
def test_the_tables_in_the_docs_are_what_the_scripts_make(script: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
