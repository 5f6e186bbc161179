"""Does it matter how many samples attention sees at once? p-Meta's table 6 for finished runs.

    python benchmarks/omniglot.py --method p-meta            trains the two runs below
    python benchmarks/accumulation.py runs/omniglot/pmeta-conv4-omniglot-{1,5}shot

Each run is adapted to the same 300 test tasks with the gradients of 1 or more samples at a time, over which attention
averages its scores. One thread.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from machine import machine
from trainings import command, keep, parser

BATCHES = {1: (1, 2, 5), 5: (1, 5, 25)}
"""Accumulation batches by shots, 5-way, as in the paper."""
TASKS = 300


def main() -> None:
    """Score the runs; rewrite the results file after every row."""
    arguments = parser(__doc__, "omniglot", "accumulation.json")
    arguments.add_argument("runs", type=Path, nargs="+", help="finished 5-way runs")
    args = arguments.parse_args()
    for run in args.runs:
        for batch in BATCHES[json.loads((run / "result.json").read_text())["shots"]]:
            row = scored(run, batch, args.data)
            keep(row, args.out, lambda each: (each["shots"], each["batch"]))
            print(json.dumps(row), flush=True)


def scored(run: Path, batch: int, data: Path) -> dict[str, Any]:
    """Return what was trained, and its accuracy with `batch` samples at a time."""
    result = json.loads((run / "result.json").read_text())
    options = [
        "--data",
        f"{result['data']}={data}",
        "--tasks",
        TASKS,
        "--batch",
        batch,
        "--threads",
        1,
        "--json",
    ]
    found = command("meta-train", "eval", run, *options)
    return {
        **{name: result[name] for name in ("recipe", "method", "ways", "shots", "seed", "versions")},
        "batch": batch,
        **{name: found[name] for name in ("accuracy", "ci95", "tasks")},
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
