"""Every method's short recipe on Omniglot, 5-way 1-shot: does it learn, and how well?

    python benchmarks/methods.py                  all methods, one after the other: about an hour on one core
    python benchmarks/methods.py --method imaml

One thread each, resumable: finished trainings under --work (those of omniglot.py among them) are used again, an
interrupted one goes on from its checkpoint. Accuracy is on 600 tasks of the evaluation alphabets with the device's
semantics. Ends with exit code 1 if a method stays below its floor.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from trainings import PREFIXES, WAYS, keep, parser, recipe_of, trained

SHOTS = 1
SCORE = ("accuracy", "ci95", "tasks", "accuracy_before")
FLOORS = {"p-meta": 0.9, "maml++": 0.9, "anil": 0.85, "mrml": 0.85}
FLOOR = 0.55
"""What a method's interval has to stay above. `FLOOR` is for the recipes of a few hundred small outer steps: more than
ten points above the best that needs no learning (`nearest_class`: 42 %). The four in `FLOORS` train longer or solve for
the output layer alone, which learns faster. All were set after short trials, so they guard what was reached."""


def main() -> None:
    """Train what is asked for; rewrite the results file after every method."""
    arguments = parser(__doc__, "omniglot", "methods.json")
    arguments.add_argument("--method", choices=[*PREFIXES], action="append", help="default: all")
    args = arguments.parse_args()
    unlearned = nearest_class(args.data)
    rows = []
    for method in args.method or PREFIXES:
        rows.append(benchmark(method, args.work, args.data) | {"nearest_class": unlearned})
        keep(rows[-1], args.out, lambda each: [*PREFIXES].index(each["method"]))
        print(json.dumps(rows[-1]), flush=True)
    if low := [row["method"] for row in rows if row["accuracy"] - row["ci95"] < row["floor"]]:
        sys.exit(f"below the floor: {', '.join(low)}")


def benchmark(method: str, work: Path, data: Path) -> dict[str, Any]:
    """Train one method by its recipe; return its row."""
    recipe = recipe_of(method, SHOTS)
    run = trained(recipe, work / recipe, data)
    return described(run) | {"floor": FLOORS.get(method, FLOOR), "machine": machine()}


def described(run: Path) -> dict[str, Any]:
    """Return what was trained, for how long, and what came out."""
    from edge_adapt.cloud.run.directory import read_config

    config, result = read_config(run), json.loads((run / "result.json").read_text())
    return {
        "method": result["method"],
        "recipe": result["recipe"],
        "ways": result["ways"],
        "shots": result["shots"],
        "seed": result["seed"],
        "outer_steps": config.train.outer_steps,
        "tasks_per_step": config.train.tasks_per_step,
        "kept_step": result["step"],
        "minutes": round(result["seconds"] / 60, 1),
        **{name: result["test"][name] for name in SCORE},
        "lower_residual": lower_residual(run),
        "versions": result["versions"],
    }


def lower_residual(run: Path) -> float | None:
    """Return the mean residual of the lower level over the last steps of training; None for explicit methods."""
    with (run / "metrics.csv").open(newline="") as lines:
        last = [*csv.DictReader(lines)][-1]
    return float(last["lower_residual"]) if "lower_residual" in last else None


def nearest_class(data: Path, tasks: int = 600) -> float:
    """Return the accuracy of the nearest support image, pixel by pixel, on the same test tasks."""
    from edge_adapt.cloud.config import TaskConfig
    from edge_adapt.cloud.parts.assemble import draw_all, fixed_sampler
    from edge_adapt.cloud.tasks import load_dataset

    sampler = fixed_sampler(load_dataset("omniglot", "test", data), TaskConfig(WAYS, SHOTS))
    hits = []
    for batch in draw_all(sampler, tasks):
        support, query = batch.support_x.flatten(2).double(), batch.query_x.flatten(2).double()
        nearest = (query[:, :, None] - support[:, None]).square().sum(-1).argmin(-1)
        hits.append((batch.support_y.gather(1, nearest) == batch.query_y).numpy())
    return float(np.concatenate(hits).mean())


if __name__ == "__main__":
    main()
