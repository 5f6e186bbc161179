"""Omniglot, 5-way: accuracy, sparsity and device memory of each method, side by side.

    python benchmarks/omniglot.py                          all methods, 1 and 5 shots
    python benchmarks/omniglot.py --method p-meta --shots 1

Resumable: finished trainings and exports under --work are kept and used again; an interrupted training
goes on from its checkpoint. Accuracy is on 600 tasks of the evaluation alphabets, with the device's
semantics. Device memory is the most frugal plan of each bundle (micro-batch 1, float32), and what a
fresh `edge-adapt run` process then measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from trainings import WAYS, command, exported, frozen_layers, keep, most_frugal, parser, recipe_of, trained

METHODS = ["p-meta", "maml++", "anil"]
TASKS = 600


def main() -> None:
    """Run what is asked for; rewrite the results file after every row."""
    arguments = parser(__doc__, "omniglot", "omniglot.json")
    arguments.add_argument("--method", choices=METHODS, action="append", help="default: all")
    arguments.add_argument("--shots", type=int, choices=[1, 5], action="append", help="default: both")
    args = arguments.parse_args()
    for shots in args.shots or [1, 5]:
        for method in args.method or METHODS:
            row = benchmark(method, shots, args.work, args.data)
            keep(row, args.out, lambda each: (each["shots"], METHODS.index(each["method"])))
            print(json.dumps(row))


def benchmark(method: str, shots: int, work: Path, data: Path) -> dict[str, Any]:
    """Train, evaluate, export, plan and run one method; return its row."""
    recipe = recipe_of(method, shots)
    run = trained(recipe, work / recipe, data)
    result = json.loads((run / "result.json").read_text())
    score = command("meta-train", "eval", run, "--data", f"omniglot={data}", "--tasks", TASKS, "--json")
    bundle = exported(run)
    device = adapt_once(bundle, work / f"{run.name}-adapted", shots, data)
    return {
        "method": method,
        "ways": WAYS,
        "shots": shots,
        "accuracy": score["accuracy"],
        "ci95": score["ci95"],
        "tasks": score["tasks"],
        "training_seconds": result["seconds"],
        "zero_step_sizes": result["zero_step_sizes"],
        "frozen_layers": frozen_layers(device["layers"], bundle),
        "planned_dynamic_bytes": device["dynamic_bytes"],
        "measured_dynamic_bytes": device["measured_dynamic_bytes"],
        "planned_peak_bytes": device["planned_peak_bytes"],
        "measured_peak_bytes": device["measured_peak_bytes"],
        "micro_batch": device["micro_batch"],
        "adaptation_seconds": device["seconds"],
        "machine": machine(),
    }


def adapt_once(bundle: Path, adapted: Path, shots: int, data: Path) -> dict[str, Any]:
    """Adapt to one evaluation task within the arena of the most frugal plan; return the report."""
    from edge_adapt.cloud.tasks import EpisodeSampler, load_dataset

    dataset = load_dataset("omniglot", "test", data_dir=data)
    episode = EpisodeSampler(dataset, ways=WAYS, shots=shots, queries=15, seed=0).episode(0)
    support = adapted.with_suffix(".npz")
    np.savez(support, images=episode.support_x, labels=episode.support_y)
    budget = most_frugal(bundle, WAYS * shots).dynamic_bytes
    verb = ["run", bundle, "--support", support, "-o", adapted, "--samples", WAYS * shots]
    return command("edge-adapt", *verb, "--dynamic-budget", budget, "--json")


if __name__ == "__main__":
    main()
