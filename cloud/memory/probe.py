"""A process that takes the first steps of runs and says what memory they took; see `memory.budget`.

Reads {"threads": n, "jobs": [configuration, ...]} from stdin; writes one JSON object per job to stdout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..assemble import fixed_sampler, load_split, parts_of, training_sampler
from ..config import RunConfig
from ..errors import ConfigError
from ..run.directory import RunDirectory
from ..run.loop import Job, begin, run
from ..run.progress import Progress
from .allocator import keep_freed_memory
from .peak import peak_bytes, reset_peak


def main() -> None:
    """Answer the question on stdin."""
    asked: dict[str, Any] = json.load(sys.stdin)
    torch.set_num_threads(asked["threads"])
    keep_freed_memory()
    try:
        for table in asked["jobs"]:
            print(json.dumps({"peak_bytes": _peak_of(RunConfig.from_table(table))}), flush=True)
    except ConfigError as error:
        print(json.dumps({"error": str(error)}), flush=True)
    except torch.cuda.OutOfMemoryError:
        return


def _peak_of(config: RunConfig) -> int:
    """Peak of a whole run of that configuration, but for its end; what was loaded before it counts."""
    device = torch.device(config.train.device)
    reset_peak(device)
    training = training_sampler(config)
    validation = fixed_sampler(load_split(config.data, "val"), config.task)
    parts = parts_of(config, training.spec, training.outputs)
    with TemporaryDirectory() as folder:
        job = Job(parts, training, validation, RunDirectory(Path(folder) / "run"))
        steps = config.train.outer_steps
        with Progress(steps, 0, shown=False, loss=parts.loss) as shown:
            run(job, begin(job), shown)
    return peak_bytes(device)


if __name__ == "__main__":
    main()
