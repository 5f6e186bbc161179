"""Omniglot, 5-way: accuracy, sparsity and device memory of each method, side by side.

    python benchmarks/omniglot.py                          all methods, 1 and 5 shots
    python benchmarks/omniglot.py --method p-meta --shots 1

Resumable: finished trainings and exports under --work are kept and used again; an interrupted training
goes on from its checkpoint. Accuracy is on 600 tasks of the evaluation alphabets, with the device's
semantics. Device memory is the most frugal plan of each bundle (micro-batch 1, float32), and what a
fresh `edge-adapt run` process then measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "omniglot.json"
RECIPES = {"p-meta": "pmeta", "maml++": "mamlpp", "anil": "anil"}
WAYS = 5
TASKS = 600


def main() -> None:
    """Run what is asked for; rewrite the results file after every row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=[*RECIPES], action="append", help="default: all")
    parser.add_argument("--shots", type=int, choices=[1, 5], action="append", help="default: both")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "omniglot", help="where runs are kept")
    parser.add_argument("--data", type=Path, default=None, help="directory of omniglot28.npz")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results file")
    args = parser.parse_args()
    data = args.data or Path(os.environ.get("EDGE_ADAPT_DATA", ROOT.parent / "shared" / "data"))
    for shots in args.shots or [1, 5]:
        for method in args.method or [*RECIPES]:
            row = benchmark(method, shots, args.work, data)
            keep(row, args.out)
            print(json.dumps(row))


def benchmark(method: str, shots: int, work: Path, data: Path) -> dict[str, Any]:
    """Train, evaluate, export, plan and run one method; return its row."""
    run = work / f"{RECIPES[method]}-{shots}shot"
    train(f"{RECIPES[method]}-conv4-omniglot-{shots}shot", run, data)
    result = json.loads((run / "result.json").read_text())
    score = command("meta-train", "eval", run, "--data", f"omniglot={data}", "--tasks", TASKS, "--json")
    bundle = run.with_name(run.name + "-bundle")
    if not bundle.exists():
        command("export-bundle", run, "-o", bundle)
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


def train(recipe: str, run: Path, data: Path) -> None:
    """Train, or go on from the checkpoint; a finished run is left alone."""
    if (run / "result.json").exists():
        return
    resume = ["--resume"] if (run / "checkpoint.pt").exists() else []
    tool = Path(sys.executable).with_name("meta-train")
    subprocess.run([tool, "run", recipe, "--data", data, "--out", run, *resume], check=True)


def adapt_once(bundle: Path, adapted: Path, shots: int, data: Path) -> dict[str, Any]:
    """Adapt to one evaluation task with the smallest dynamic budget that can be met; return the report."""
    from edge_adapt.cloud.tasks import EpisodeSampler, load_dataset
    from edge_adapt.edge import BudgetError, Bundle

    dataset = load_dataset("omniglot", "test", data_dir=data)
    episode = EpisodeSampler(dataset, ways=WAYS, shots=shots, queries=15, seed=0).episode(0)
    support = adapted.with_suffix(".npz")
    np.savez(support, images=episode.support_x, labels=episode.support_y)
    try:
        Bundle.open(bundle).plan(dynamic_budget=1, samples=WAYS * shots)
    except BudgetError as error:
        smallest = error.smallest_bytes
    verb = ["run", bundle, "--support", support, "-o", adapted, "--samples", WAYS * shots]
    return command("edge-adapt", *verb, "--dynamic-budget", smallest, "--json")


def frozen_layers(layers: list[list[str]], bundle: Path) -> list[str]:
    """Return the layers that are updated at no step."""
    updated = {name for step in layers for name in step}
    manifest = json.loads((bundle / "manifest.json").read_text())
    return [layer["name"] for layer in manifest["layers"] if layer["name"] not in updated]


def command(tool: str, *arguments: object) -> Any:
    """Run one of our commands in a process of its own; return its JSON output, if it printed any."""
    line = [str(Path(sys.executable).with_name(tool)), *map(str, arguments)]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if "--json" in line else None


def keep(row: dict[str, Any], out: Path) -> None:
    """Put the row into the results file, in place of an older one of the same method and shots."""
    rows = json.loads(out.read_text()) if out.exists() else []
    rows = [old for old in rows if (old["method"], old["shots"]) != (row["method"], row["shots"])] + [row]
    rows.sort(key=lambda each: (each["shots"], [*RECIPES].index(each["method"])))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".tmp")
    partial.write_text(json.dumps(rows, indent=1) + "\n")
    partial.replace(out)


if __name__ == "__main__":
    main()
