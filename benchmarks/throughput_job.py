"""One measurement of benchmarks/cloud_throughput.py, in a process of its own: `throughput_job.py JOB` (JSON)."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from edge_adapt.cloud.inner.base import Batch
from edge_adapt.cloud.memory.allocator import keep_freed_memory
from edge_adapt.edge.measure import PeakMeter
from maml_steps import LIBRARIES, OuterStep, Problem

UNTIMED = 2
"""First steps: they compile, and take memory from the system that later ones use again."""


@dataclass(frozen=True)
class Job:
    """One library on one problem: how many steps are timed after `UNTIMED` that are not, on how many threads."""

    library: str
    problem: Problem
    steps: int = 3
    threads: int = 1

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "problem": Problem(**values["problem"])})

    def to_json(self) -> str:
        """Write every setting."""
        return json.dumps(asdict(self))


def measure(job: Job) -> dict[str, Any]:
    """Time the steps, and watch memory from before the first to after the last.

    Returns:
        `seconds` and `cpu_seconds` (processor time) of each timed step, and `peak_bytes`: of the resident set above
        its size before the first step, on a GPU of torch's allocator.
    """
    torch.set_num_threads(job.threads)
    keep_freed_memory()  # for every library alike
    step = LIBRARIES[job.library](job.problem)
    batches = [job.problem.batch(seed) for seed in range(UNTIMED + job.steps)]
    with PeakMeter() as meter:
        before = _allocated(job.problem, reset=True)
        times = [_timed(step, batch) for batch in batches][UNTIMED:]
        peak = meter.read() if before is None else _allocated(job.problem) - before
    return {"seconds": [t[0] for t in times], "cpu_seconds": [t[1] for t in times], "peak_bytes": peak}


def _timed(step: OuterStep, batch: Batch) -> tuple[float, float]:
    started, worked = time.perf_counter(), time.process_time()
    gradients = step(batch)
    float(next(iter(gradients.values())).sum())  # a GPU has finished when this is known
    return time.perf_counter() - started, time.process_time() - worked


def _allocated(problem: Problem, reset: bool = False) -> Any:
    """Bytes that torch's allocator holds (`reset`) or held at most on the GPU; None on a CPU."""
    if problem.device == "cpu":
        return None
    if not reset:
        return torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


if __name__ == "__main__":
    print(json.dumps(measure(Job.from_json(sys.argv[1]))))
