"""One measurement of benchmarks/cloud_throughput.py, in a process of its own: throughput_job.py JOB (JSON)."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

import torch
from edge_adapt.cloud.memory import keep_freed_memory
from edge_adapt.edge.measure import PeakMeter
from maml_steps import LIBRARIES, Problem


@dataclass(frozen=True)
class Job:
    """One library on one problem: how many steps are timed after one that is not, on how many CPU threads."""

    library: str
    problem: Problem
    steps: int
    threads: int

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "problem": Problem(**values["problem"])})

    def to_json(self) -> str:
        """Write all settings."""
        return json.dumps(asdict(self))


def measure(job: Job) -> dict[str, Any]:
    """Seconds of every timed step, and how far memory grew above the state before the first step, in bytes."""
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    step = LIBRARIES[job.library](job.problem)
    batches = [job.problem.batch(seed) for seed in range(job.steps + 1)]
    with PeakMeter() as meter:
        step(batches[0])
        seconds = [_timed(step, batch) for batch in batches[1:]]
    return {"seconds": seconds, "peak_bytes": meter.peak_bytes}
