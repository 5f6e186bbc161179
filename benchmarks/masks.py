"""Meta-train the step sizes of `benchmarks/masks/*.json`: which layers learn at 84 pixels, 5-way 5-shot.

    python benchmarks/masks.py                   both networks: about 90 minutes on one free core
    python benchmarks/masks.py --network conv4   p-Meta and its dense twin: about 60 minutes

One thread each. For every network: initial weights by ordinary classification of the 64 training classes of
mini-ImageNet (`pretrain.py`), meta-training from a recipe, the same for the dense baseline where there is one, and
a file with the table of step sizes and where it comes from. Finished parts under --work are kept and used again;
an interrupted meta-training goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import machine

ROOT = Path(__file__).resolve().parents[1]
MASKS = ROOT / "benchmarks" / "masks"
SCORE = ("accuracy", "ci95", "tasks", "accuracy_before")


@dataclass(frozen=True)
class Case:
    """One network: how it is pretrained, its recipe, the recipe of its dense baseline."""

    pretraining: tuple[str, ...]
    recipe: str
    baseline: str | None


CASES = {
    "conv4": Case(
        ("--steps", "1600", "--crop", "64", "--batch", "64", "--bfloat16"),
        "pmeta-conv4-miniimagenet-5shot",
        "mamlpp-conv4-miniimagenet-5shot",
    ),
    "resnet12": Case(
        ("--steps", "450", "--crop", "48", "--batch", "32", "--bfloat16"),
        "pmeta-resnet12-miniimagenet-5shot",
        None,
    ),
}


def main() -> None:
    """Make the files that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=[*CASES], action="append", help="default: both")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "masks", help="where runs are kept")
    parser.add_argument("--data", type=Path, default=None, help="directory of miniimagenet84_*.npz")
    parser.add_argument("--out", type=Path, default=MASKS, help="where the files go")
    args = parser.parse_args()
    data = args.data or Path(os.environ.get("EDGE_ADAPT_DATA", ROOT.parent / "shared" / "data"))
    for network in args.network or CASES:
        content = step_sizes(network, CASES[network], args.work, data)
        file = args.out / f"{network}-miniimagenet-5shot.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".tmp")
        partial.write_text(to_json(content))
        partial.replace(file)
        print(file)


def step_sizes(network: str, case: Case, work: Path, data: Path) -> dict[str, Any]:
    """Train what is missing; return a file's content."""
    weights = work / f"{network}-initial.safetensors"
    if not weights.exists():
        script = [sys.executable, str(ROOT / "benchmarks" / "pretrain.py"), network, "-o", str(weights)]
        run([*script, "--data", str(data), *case.pretraining])
    trained = meta_trained(case.recipe, weights, work / f"{network}-pmeta", data)
    content = described(trained)
    content["provenance"] |= provenance(trained)
    content["baseline"] = None
    if case.baseline is not None:
        dense = meta_trained(case.baseline, weights, work / f"{network}-baseline", data)
        content["baseline"] = provenance(dense)
    return content


def meta_trained(recipe: str, weights: Path, out: Path, data: Path) -> Path:
    """Meta-train on one thread, or go on from the checkpoint; a finished run is left alone."""
    if not (out / "result.json").exists():
        resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
        settings = ["--set", f"train.initial_weights={weights}", "--data", str(data), "--threads", "1"]
        run([tool("meta-train"), "run", recipe, "--out", str(out), *settings, *resume])
    return out


def described(trained: Path) -> dict[str, Any]:
    """Network, layers and step sizes of a finished run."""
    from edge_adapt.cloud import load_run

    found = load_run(trained)
    spec = found.spec
    return {
        "model": {
            "backbone": found.config.backbone,
            "channels": spec.channels,
            "height": spec.height,
            "width": spec.width,
            "classes": found.config.task.ways,
            "samples": found.samples,
        },
        "layers": [layer.name for layer in found.layers],
        "alpha": [[float(f"{size:.9g}") for size in step] for step in found.alpha.tolist()],
        "provenance": {},
    }


def provenance(trained: Path) -> dict[str, Any]:
    """Where a run's numbers come from, and its score on the test tasks."""
    from edge_adapt.cloud import load_run
    from edge_adapt.cloud.settings.typed import to_table

    found = load_run(trained)
    settings, weights = to_table(found.config), found.config.train.initial_weights
    assert weights is not None  # every case has them
    settings["train"]["initial_weights"] = Path(weights).name
    settings["data"].pop("root")
    settings.pop("summary")
    return {
        "recipe": found.config.recipe,
        "method": found.config.method.name,
        "first_order": found.config.method.first_order,
        "seed": found.config.seed,
        "outer_steps": found.config.train.outer_steps,
        "kept_step": found.result["step"],
        "minutes": round(found.result["seconds"] / 60, 1),
        "initial_weights": json.loads(Path(weights).with_suffix(".json").read_text()),
        "test": {name: found.result["test"][name] for name in SCORE},
        "validation": found.result["validation"],
        "zero_step_sizes": found.result["zero_step_sizes"],
        "versions": found.result["versions"],
        "machine": machine(),
        "settings": settings,
    }


def run(line: list[str]) -> None:
    """Run a command with one thread in its numerical libraries."""
    subprocess.run(line, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def tool(name: str) -> str:
    """The path of one of our commands."""
    return str(Path(sys.executable).with_name(name))


def to_json(content: dict[str, Any]) -> str:
    """JSON, indented, but each step's row of step sizes on one line."""
    rows = content["alpha"]
    text = json.dumps({**content, "alpha": "ROWS"}, indent=1)
    return text.replace('"ROWS"', "[\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n ]") + "\n"


if __name__ == "__main__":
    main()
