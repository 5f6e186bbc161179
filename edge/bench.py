"""Engines compared on a bundle: every measurement in a fresh process, round by round, one engine after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from .errors import EdgeAdaptError, UsageError
from .threads import VARIABLES

if TYPE_CHECKING:
    from .bench_job import Job

MODULE = "edge_adapt.edge.bench_job"
PYTHON_VARIABLE = "EDGE_ADAPT_ORT_TRAINING"
"""Names the Python of the environment that has onnxruntime-training, which cannot be installed beside onnxruntime."""
MEDIANS = ("seconds", "cpu_seconds", "measured_peak_bytes", "baseline_bytes")
COMPARED_WITH = ("ort-training", "onnxruntime", "reference")
"""Ratios are to the first of these that ran."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """An engine and the command that measures it; a job in JSON is its last argument."""

    engine: str
    command: tuple[str, ...]


@dataclass
class Comparison:
    """What was measured.

    Attributes:
        rows: per contender the figures of `bench_job.measure`, medians over the rounds, and `rounds`.
        not_run: why an engine has no row.
    """

    rows: list[Row] = field(default_factory=list)
    not_run: dict[str, EdgeAdaptError] = field(default_factory=dict)

    @property
    def compared_with(self) -> str | None:
        """The engine that ratios are to."""
        names = [row["engine"] for row in self.rows]
        return next((name for name in COMPARED_WITH if name in names), None)


def contenders(names: Sequence[str], known: Sequence[str]) -> list[Contender]:
    """Return the contenders by name, each in the Python that has it; raises UsageError for an unknown name."""
    for name in names:
        if name not in known:
            raise UsageError(f"engine {name!r} is not known, expected one of: {', '.join(known)}")
    other = os.environ.get(PYTHON_VARIABLE, sys.executable)
    pythons = {"ort-training": other}
    return [Contender(name, (pythons.get(name, sys.executable), "-m", MODULE)) for name in names]


def compare(
    listed: Sequence[Contender], job: Job, rounds: int, told: Callable[[str], None] = lambda message: None
) -> Comparison:
    """Measure every contender `rounds` times; one that cannot run is left out after its first attempt.

    Args:
        listed: the contenders.
        job: what to do; its engine is replaced by each contender's.
        rounds: measurements of each.
        told: called with one line before every round.
    """
    measured: dict[str, list[Row]] = {}
    result = Comparison()
    for number in range(rounds):
        told(f"round {number + 1} of {rounds}")
        for contender in listed:
            if contender.engine in result.not_run:
                continue
            try:
                row = run_job(contender.command, replace(job, engine=contender.engine))
            except EdgeAdaptError as error:
                result.not_run[contender.engine] = error
            else:
                measured.setdefault(contender.engine, []).append(row)
    result.rows = [_middle(rows) for name, rows in measured.items() if name not in result.not_run]
    base = next((row for row in result.rows if row["engine"] == result.compared_with), None)
    for row in result.rows:
        row["time_ratio"] = _ratio(row, base, "seconds")
        row["cpu_ratio"] = _ratio(row, base, "cpu_seconds")
        row["memory_ratio"] = _ratio(row, base, "measured_peak_bytes")
    return result


def run_job(command: Sequence[str], job: Job) -> Row:
    """Do one job in a process of its own.

    Raises:
        EdgeAdaptError: the process failed; with its message, and its exit code where it gave one.
    """
    environment = {**os.environ, **dict.fromkeys(VARIABLES, str(job.threads))}
    line = [*command, json.dumps(asdict(job))]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EdgeAdaptError(f"{command[0]} ended with code {done.returncode}: {last}")
    figures: Row = json.loads(done.stdout.splitlines()[-1])
    if "error" in figures:
        error = EdgeAdaptError(figures["error"])
        error.exit_code = figures["code"]
        raise error
    return figures


def _middle(rows: Sequence[Row]) -> Row:
    """Return a row with the medians, and the seconds of every round."""
    middle = {name: median(row[name] for row in rows) for name in MEDIANS if rows[0][name] is not None}
    return {**rows[0], **middle, "rounds": [row["seconds"] for row in rows]}


def _ratio(row: Row, base: Row | None, name: str) -> float | None:
    return row[name] / base[name] if base and row[name] is not None and base[name] else None
