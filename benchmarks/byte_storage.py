"""What storage in few bits costs in accuracy: the same tasks, adapted with maps kept as floats and as levels.

    python benchmarks/byte_storage.py BUNDLE [BUNDLE ...]        bundles of runs of omniglot.py and masks.py

Every task of the test classes is adapted to four times: all maps in float32; maps between prefix and suffix in
16 bits (cached suffix); maps for the backward pass in 8 bits (accumulate); both (cached suffix). A row is one bundle:
of each its mean accuracy on the queries, quantiles over the tasks of how far the logits are from those of float32
(largest difference relative to the largest logit), how many tasks are beyond the bound, and the arena's bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from edge_adapt.cloud.tasks import EpisodeSampler, load_dataset
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines.registry import default_engine, engine_named
from edge_adapt.edge.lower import Choice
from edge_adapt.edge.lower.choice import CACHED_SUFFIX
from edge_adapt.edge.plan import Plan
from edge_adapt.edge.plan.candidate import Family, Request
from edge_adapt.edge.plan.freezing import unfrozen
from edge_adapt.edge.plan.search import updated_layers
from machine import machine
from trainings import RESULTS, data_directory, keep

QUERIES, SEED = 15, 0
QUANTILES = {"median": 0.5, "95 %": 0.95, "largest": 1.0}
BOUND = 2e-2
FLOATS = "float32"
CHOICES = {
    FLOATS: Choice(),
    "16-bit cached": Choice(1, CACHED_SUFFIX, "dense", 32, 16, True, "convs"),
    "8-bit saved": Choice(saved_bits=8, recompute=True, tiling="convs"),
    "8-bit saved and 16-bit cached": Choice(1, CACHED_SUFFIX, "dense", 8, 16, True, "convs"),
}


def main() -> None:
    """Run what is asked for; rewrite the results file after every row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "bundle", type=Path, nargs="+", help="a bundle exported from a run on Omniglot or mini-ImageNet"
    )
    parser.add_argument("--tasks", type=int, default=600, help="tasks of the test classes")
    parser.add_argument("--engine", default=default_engine(), help="native or reference")
    parser.add_argument(
        "--data", type=Path, default=data_directory(), help="directory of the data sets' files"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "byte_storage.json", help="the results file")
    args = parser.parse_args()
    for path in args.bundle:
        row = compared(Bundle.open(path), args.tasks, args.engine, args.data)
        keep(row, args.out, lambda each: each["recipe"])
        print(json.dumps(row))


@dataclass
class Score:
    """Results of one way to store maps, task by task."""

    plan: Plan
    accuracy: list[float] = field(default_factory=list)
    difference: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the mean accuracy, its 95 % interval, quantiles of the difference, the bytes."""
        spread = 1.96 * float(np.std(self.accuracy)) / len(self.accuracy) ** 0.5
        return {
            "accuracy": float(np.mean(self.accuracy)),
            "ci95": spread,
            "logits_difference": {
                name: float(np.quantile(self.difference, at)) for name, at in QUANTILES.items()
            },
            "tasks_beyond_bound": sum(one > BOUND for one in self.difference),
            "dynamic_bytes": self.plan.dynamic_bytes,
            "saved_bytes": self.plan.terms["saved"],
        }


def compared(bundle: Bundle, tasks: int, engine: str, data: Path) -> dict[str, Any]:
    """Adapt to every task with every choice; return the bundle's row."""
    provenance = bundle.files.manifest.provenance
    ways, shots = provenance["ways"], provenance["shots"]
    plans = planned(bundle, ways * shots, engine)
    scores = {name: Score(plan) for name, plan in plans.items()}
    dataset = load_dataset(provenance["data"], "test", data_dir=data)
    sampler = EpisodeSampler(dataset, ways=ways, shots=shots, queries=QUERIES, seed=SEED)
    for index in range(tasks):
        episode = sampler.episode(index)
        found = {
            name: bundle.adapt(episode.support_x, episode.support_y, plan, engine).logits(episode.query_x)
            for name, plan in plans.items()
        }
        for name, logits in found.items():
            right = logits[:, :ways].argmax(axis=1) == episode.query_y
            scores[name].accuracy.append(float(right.mean()))
            error = np.abs(logits - found[FLOATS]).max() / np.abs(found[FLOATS]).max()
            scores[name].difference.append(float(error))
    return {
        "recipe": provenance["recipe"],
        "tasks": tasks,
        "engine": engine,
        **{name: score.to_json() for name, score in scores.items()},
        "machine": machine(),
    }


def planned(bundle: Bundle, samples: int, engine: str) -> Mapping[str, Plan]:
    """Plan every choice as it is, whatever the search would take."""
    files, target = bundle.files, engine_named(engine, bundle.files.path).target
    updated = updated_layers(files.program, files.weights.copy("alpha"), files.program.steps)
    request = Request(files.program, updated, samples, None, 0, target)
    return {
        name: Family(request, unfrozen(updated), 0.0, None, choice, (1,)).plan(1)
        for name, choice in CHOICES.items()
    }


if __name__ == "__main__":
    main()
