"""Batch norm against group norm, average against max pooling, one sample at a time against all at once.

    python benchmarks/ablations.py                        all cells: some 25 minutes of one core
    python benchmarks/ablations.py --norm batch --pool max

p-Meta's table 5 on Omniglot, 5-way 1-shot, by MAML without attention: meta-trained on the whole support set at once
(`SETTINGS` is a small budget), adapted to 300 tasks of the evaluation alphabets with the gradients of one sample at
a time accumulated, and of all at once. Queries are always scored together, 15 of each class. One thread, resumable.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from machine import machine
from trainings import WAYS, command, keep, parser, recipe_of, trained

NORMS, POOLS = ("group", "batch"), ("max", "average")
BATCHES = (1, WAYS)
TASKS = 300
SETTINGS = {
    "train.outer_steps": 300,
    "train.tasks_per_step": 8,
    "train.learning_rate": 2e-3,
    "train.validate_every": 300,
    "train.validation_tasks": 100,
    "train.test_tasks": 2,
    "task.augmentation": 0.0,
    "method.inner_step_size": 0.4,
    "method.tasks_per_chunk": 8,
    "method.first_order_until": 0.0,
}


def main() -> None:
    """Train what is asked for; rewrite the results file after every row."""
    arguments = parser(__doc__, "ablations", "ablations.json")
    arguments.add_argument("--norm", choices=NORMS, action="append", help="default: both")
    arguments.add_argument("--pool", choices=POOLS, action="append", help="default: both")
    args = arguments.parse_args()
    for norm in args.norm or NORMS:
        for pool in args.pool or POOLS:
            for row in cell(norm, pool, args.work, args.data):
                keep(row, args.out, _place)
                print(json.dumps(row), flush=True)


def cell(norm: str, pool: str, work: Path, data: Path) -> list[dict[str, Any]]:
    """Meta-train one backbone; return a row for each accumulation batch."""
    changes = {**SETTINGS, "architecture.norm": norm, "architecture.pool": pool}
    run = trained(recipe_of("maml", 1), work / f"{norm}-{pool}", data, changes)
    result = json.loads((run / "result.json").read_text())
    same = {
        "norm": norm,
        "pool": pool,
        "outer_steps": SETTINGS["train.outer_steps"],
        "tasks_per_step": SETTINGS["train.tasks_per_step"],
        "minutes": round(result["seconds"] / 60, 1),
        "seed": result["seed"],
        "versions": result["versions"],
        "machine": machine(),
    }
    return [same | score(run, batch, data) for batch in BATCHES]


def score(run: Path, batch: int, data: Path) -> dict[str, Any]:
    """Adapt with the gradients of `batch` samples at a time; return accuracy, interval and tasks."""
    options = ["--data", f"omniglot={data}", "--tasks", TASKS, "--batch", batch, "--threads", 1, "--json"]
    found = command("meta-train", "eval", run, *options)
    return {"batch": batch} | {name: found[name] for name in ("accuracy", "ci95", "tasks")}


def _place(row: dict[str, Any]) -> tuple[int, int, int]:
    return NORMS.index(row["norm"]), POOLS.index(row["pool"]), row["batch"]


if __name__ == "__main__":
    main()
