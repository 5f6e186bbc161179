"""`edge-adapt bench`: fresh processes, engines in turns, medians; what it prints and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from edge_adapt.edge.bench import Contender, compare
from edge_adapt.edge.bench_job import Job
from edge_adapt.edge.report import TOLERANCE_BYTES

from .bundles import NET, SAMPLES, write_bundle
from .commands import edge_adapt, edge_adapt_here, edge_adapt_json, error_line

KEYS = {"bundle", "samples", "steps", "threads", "memory_budget_bytes", "compared_with", "rows", "not_run"}
ROW_KEYS = {
    "engine", "threads", "seconds", "cpu_seconds", "planned_peak_bytes", "measured_peak_bytes", "dynamic_bytes",
    "baseline_bytes", "micro_batch", "schedule", "storage", "frozen", "rounds",
    "time_ratio", "cpu_ratio", "memory_ratio",
}  # fmt: skip
LOGGER = """
import json, os, sys
job, log = json.loads(sys.argv[2]), open(sys.argv[1], "a+")
log.seek(0)
number = len(log.read().splitlines())
print(job["engine"], os.getpid(), os.environ["OMP_NUM_THREADS"], file=log)
figures = {"seconds": [5, 1, 9, 2, 4, 3][number], "cpu_seconds": 1, "measured_peak_bytes": None, "baseline_bytes": None}
print(json.dumps({"engine": job["engine"], **figures}))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bench") / "bundle")


def test_the_reference_engine_keeps_its_plan_also_here(bundle: Path) -> None:
    result = edge_adapt_json("bench", bundle, "--engine", "reference", "--rounds", 2)
    assert result.keys() >= KEYS
    (row,) = result["rows"]
    assert row.keys() >= ROW_KEYS
    assert (row["engine"], row["threads"], len(row["rounds"]), row["frozen"]) == ("reference", 1, 2, 0)
    assert (row["time_ratio"], result["compared_with"], result["not_run"]) == (1, "reference", {})
    assert (result["samples"], result["steps"]) == (SAMPLES, NET.steps)
    assert 0 < row["measured_peak_bytes"] <= row["planned_peak_bytes"] + TOLERANCE_BYTES


def test_a_budget_samples_and_steps_reach_the_plan(bundle: Path) -> None:
    options = ("--engine", "reference", "--rounds", 1, "--samples", 3, "--steps", 2)
    free = edge_adapt_json("bench", bundle, *options)
    budget = free["rows"][0]["planned_peak_bytes"] - 1
    result = edge_adapt_json("bench", bundle, *options, "--memory-budget", budget)
    assert (result["samples"], result["steps"], result["memory_budget_bytes"]) == (3, 2, budget)
    assert result["rows"][0]["planned_peak_bytes"] <= budget


def test_an_engine_that_cannot_run_is_listed_with_the_reason(bundle: Path) -> None:
    table = edge_adapt("bench", bundle, "--rounds", 1, "--samples", 2, "--steps", 1).stdout
    head, *lines = table.splitlines()
    assert head.split()[:2] == ["engine", "seconds"]
    assert "reference" in [line.split()[0] for line in lines if line]
    (reason,) = (line for line in lines if line.startswith("not run: onnxruntime: "))
    assert "training.onnx" in reason


def test_an_engine_that_was_asked_for_and_cannot_run_is_an_error(bundle: Path) -> None:
    done = edge_adapt_here("bench", bundle, "--engine", "onnxruntime", "--rounds", 1, code=4)
    assert "the bundle has no training.onnx" in done.stderr


def test_an_engine_that_nobody_knows_is_refused_at_once(bundle: Path) -> None:
    message = error_line(edge_adapt_here("bench", bundle, "--engine", "abacus", code=2))
    assert message.startswith("engine 'abacus' is not known, expected one of: ")


def test_engines_take_turns_in_processes_of_their_own_and_medians_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    listed = [Contender(name, (sys.executable, "-c", LOGGER, str(log))) for name in ("a", "reference")]
    result = compare(listed, Job("", "", threads=3, samples=1, steps=1), rounds=3)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [name for name, _, _ in lines] == ["a", "reference"] * 3
    assert len({process for _, process, _ in lines}) == 6
    assert {threads for _, _, threads in lines} == {"3"}
    assert [row["seconds"] for row in result.rows] == [5, 2]  # of 5, 9, 4 and of 1, 2, 3
    assert [row["time_ratio"] for row in result.rows] == [2.5, 1]
    assert json.loads(json.dumps(result.rows[0]["rounds"])) == [5, 9, 4]
    assert result.rows[0]["memory_ratio"] is None


def test_a_measurement_that_breaks_down_says_what_its_process_said() -> None:
    listed = [Contender("a", (sys.executable, "-c", "raise SystemExit('out of paper')"))]
    result = compare(listed, Job("", "", 1, 1, 1), rounds=2)
    assert not result.rows
    assert "out of paper" in str(result.not_run["a"])
