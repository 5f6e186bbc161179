"""One measurement of a comparison, made in a process of its own: `python -m edge_adapt.edge.bench_job JOB`.

The peak is measured from the state after the imports, with the engine's library loaded: sessions, weights, samples
and the adaptation itself count for every engine alike. Nothing is rehearsed; the time is that of the gradient steps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import BundleFiles, read_bundle
from .by_stream import stream_engine
from .engines import NO_HOOKS, Engine, engine_named
from .errors import EdgeAdaptError
from .measure import PeakMeter
from .plan import Plan, search_plan
from .planning import Request, make_plan, target_of
from .process import give_back_freed_memory, warm_up
from .stream.adaptation import adapt_stream
from .verify import selftest_support

MakeEngine = Callable[[str, Path, int], Engine]
PLANNED = ("planned_peak_bytes", "dynamic_bytes", "schedule", "storage", "saved_bits", "cache_bits")


@dataclass(frozen=True)
class Job:
    """One engine on one bundle; the caller sets the environment variables that numerical libraries read.

    Attributes:
        bundle: its directory.
        engine: name.
        threads: of the engine.
        samples: support samples, the self-test's over and over.
        steps: gradient steps.
        micro_batch: of engines that do not plan.
        memory_budget: of those that do, in bytes; None: no bound.
    """

    bundle: str
    engine: str
    threads: int
    samples: int
    steps: int
    micro_batch: int = 1
    memory_budget: int | None = None


def measure(job: Job, make_engine: MakeEngine = engine_named) -> dict[str, Any]:
    """Run one adaptation and return its figures.

    Returns:
        `seconds` of all gradient steps; `cpu_seconds`, processor time (at one thread much less than `seconds`: other
        processes were in the way); `measured_peak_bytes`, null where the kernel does not tell; `micro_batch`; the
        plan's figures, null for engines that do not plan; `frozen`, how often the plan does not update a layer that
        has a step size.

    Raises:
        EdgeAdaptError: the engine or the bundle cannot be used.
    """
    files = read_bundle(Path(job.bundle))
    engine = make_engine(job.engine, Path(job.bundle), job.threads)
    plan = _plan(files, engine, job)
    warm_up()
    give_back_freed_memory()
    with PeakMeter() as meter, np.errstate(over="ignore", invalid="ignore"):
        support = selftest_support(files, job.samples)
        if files.streams is None:
            adaptation = engine.adapt(files.program, plan, files.weights, support)
        else:
            adaptation = adapt_stream(files, stream_engine(files, engine), plan, support, NO_HOOKS)
    figures = plan.to_json()
    return {
        "engine": job.engine,
        "threads": job.threads,
        "seconds": adaptation.seconds,
        "cpu_seconds": adaptation.cpu_seconds,
        "measured_peak_bytes": meter.peak_bytes,
        "baseline_bytes": meter.baseline_bytes,
        "micro_batch": figures["micro_batch"],
        **{name: figures[name] if engine.plans else None for name in PLANNED},
        "frozen": _frozen(files, plan),
    }


def _plan(files: BundleFiles, engine: Engine, job: Job) -> Plan:
    if engine.plans or files.streams is not None:
        return make_plan(files, Request(job.memory_budget, None, job.samples, job.steps), target_of(engine))
    (alpha,) = files.program.with_role("step-size")
    rows = files.weights.copy(alpha.name)
    return search_plan(files.program, rows, job.samples, job.steps, micro_batch=job.micro_batch)


def _frozen(files: BundleFiles, plan: Plan) -> int:
    if files.streams is not None:
        return 0
    (alpha,) = files.program.with_role("step-size")
    rows = files.weights.copy(alpha.name)
    learned = sum(int(np.count_nonzero(rows[min(step, len(rows) - 1)])) for step in range(plan.steps))
    return learned - sum(len(names) for names in plan.layers)


def main(make_engine: MakeEngine = engine_named) -> None:
    """Do the job given as JSON in the first argument; print the figures, or `error` and `code`, as JSON."""
    try:
        figures = measure(Job(**json.loads(sys.argv[1])), make_engine)
    except EdgeAdaptError as error:
        figures = {"error": str(error), "code": error.exit_code}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
