"""The promise: what is measured stays within what was planned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge.bundle import write_tensors
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.lower.choice import ACCUMULATE, CACHED_SUFFIX
from edge_adapt.edge.plan import search_plan

from .programs import Net, conv_program, random_support, random_weights

MIB = 2**20
RUNNER = Path(__file__).with_name("measured_run.py")
MASKS = {
    "dense": ("dense", "none"),
    "block 1 frozen": ("sparse", "conv1,norm1"),
    "head only": ("dense", ",".join(f"{kind}{block}" for kind in ("conv", "norm") for block in range(1, 5))),
}


@pytest.fixture(scope="module")
def weights_files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    files = {}
    for pixels in (28, 84):
        program = conv_program(Net(pixels, 1, 32, 4, 5, 8, rho=0.3))
        files[pixels] = tmp_path_factory.mktemp("weights") / f"{pixels}.safetensors"
        write_tensors(files[pixels], random_weights(program).tensors)
    return files


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("pixels", [28, 84])
@pytest.mark.parametrize(
    ("schedule", "micro_batch"), [(ACCUMULATE, 1), (ACCUMULATE, 5), (ACCUMULATE, 25), (CACHED_SUFFIX, 5)]
)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_fresh_process_stays_within_its_plan(
    pixels: int, micro_batch: int, mask: tuple[str, str], schedule: str, weights_files: dict[int, Path]
) -> None:
    storage, frozen = mask
    command = [sys.executable, str(RUNNER), str(pixels), str(micro_batch), storage, schedule, frozen]
    command.append(str(weights_files[pixels]))
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **one_thread}, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["measured_dynamic_bytes"] <= figures["planned_dynamic_bytes"]
    assert figures["measured_peak_bytes"] <= figures["planned_peak_bytes"] + 2 * MIB
    assert figures["measured_peak_bytes"] >= figures["planned_dynamic_bytes"]  # the meter sees the arena
    assert len(figures["losses"]) == 2


@pytest.mark.parametrize("storage", ["dense", "sparse"])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_the_engine_allocates_nothing_of_size_outside_the_arena(storage: str, micro_batch: int) -> None:
    net = Net(84, 1, 32, 3, 5, 8, rho=0.3)
    program, support = conv_program(net), random_support(net, 3)
    weights = random_weights(program, step_size=0.01)
    plan = search_plan(program, np.full((1, 7), 0.01), 3, 1, micro_batch=micro_batch, storage=storage)
    one_map_bytes = 32 * 84 * 84 * 4
    copies = sum(value.nbytes for name, value in weights.tensors.items() if name in program.tensors)
    tracemalloc.start()
    try:
        ReferenceEngine().adapt(program, plan, weights, support)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - copies < one_map_bytes / 4
    assert peak - copies < 200_000  # arrays over the arena, labels, one micro-batch of weights


def test_prediction_allocates_only_its_arena_and_the_logits() -> None:
    net = Net(84, 1, 32, 3, 5, 8)
    program, support = conv_program(net), random_support(net, 3)
    weights = random_weights(program)
    tracemalloc.start()
    try:
        ReferenceEngine().predict(program, weights, support)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * 84 * 84 * 4 / 4
