"""A process that takes the first steps of runs and says what memory they took; see `memory.budget`.

Reads {"threads": n, "jobs": [configuration, ...]} from stdin; writes one JSON object per job to stdout.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..config import RunConfig
from ..errors import ConfigError, TrainingError
from ..parts.assemble import chunk_of, fixed_sampler, load_split, parts_of, training_sampler
from ..run.directory import RunDirectory
from ..run.finish import finish
from ..run.loop import Job, begin, run
from ..run.progress import Progress
from .allocator import keep_freed_memory
from .peak import peak_bytes, reset_peak

NO_MEMORY = "can't allocate memory"
"""What torch's allocator on the CPU says."""
FIRST_TO_GO = Path("/proc/self/oom_score_adj"), "1000"
"""Tells the kernel to end this process, not the run that waits for it, where memory runs out (proc(5))."""


def main() -> None:
    """Answer the question on stdin."""
    asked: dict[str, Any] = json.load(sys.stdin)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a user's own modules print
    with suppress(OSError):
        FIRST_TO_GO[0].write_text(FIRST_TO_GO[1])
    torch.set_num_threads(asked["threads"])
    keep_freed_memory()
    try:
        for table in asked["jobs"]:
            peak = _peak_of(RunConfig.from_table(table))
            print(json.dumps({"peak_bytes": peak}), file=answers, flush=True)
    except ConfigError as error:
        print(json.dumps({"error": str(error)}), file=answers, flush=True)
    except (torch.cuda.OutOfMemoryError, MemoryError):
        return
    except RuntimeError as error:
        if NO_MEMORY not in str(error):
            raise


def _peak_of(config: RunConfig) -> int:
    """Peak of a whole run of that configuration that evaluates few tasks; what was loaded before counts."""
    device = torch.device(config.train.device)
    reset_peak(device)
    training = training_sampler(config)
    validation, test = (
        fixed_sampler(load_split(config.data, split), config.task) for split in ("val", "test")
    )
    steps, together = config.train, 2 * chunk_of(validation)  # one chunk after another
    counts = {name: min(getattr(steps, name), together) for name in ("validation_tasks", "test_tasks")}
    parts = parts_of(replace(config, train=replace(steps, **counts)), training.spec, training.outputs)
    with TemporaryDirectory() as folder:
        job = Job(parts, training, validation, RunDirectory(Path(folder) / "run"))
        with Progress(steps.outer_steps, 0, shown=False, loss=parts.loss) as shown, suppress(TrainingError):
            finish(job, run(job, begin(job), shown), test, shown)  # after one step, numbers may well diverge
    return peak_bytes(device)


if __name__ == "__main__":
    main()
