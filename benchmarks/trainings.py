"""What the benchmarks that meta-train share: resumable trainings, our commands, the most frugal plan, results files."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_adapt.edge.plan import Plan

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PREFIXES = {
    "maml": "maml",
    "maml++": "mamlpp",
    "p-meta": "pmeta",
    "anil": "anil",
    "boil": "boil",
    "fomaml": "fomaml",
    "fomaml++": "fomamlpp",
    "reptile": "reptile",
    "leap": "leap",
    "imaml": "imaml",
    "mrml": "mrml",
}
"""How each method's recipes begin."""
WAYS = 5
ROOMY = 10**9
FLOAT32 = (32, 32)


def recipe_of(method: str, shots: int) -> str:
    """Return the name of a method's Omniglot recipe."""
    return f"{PREFIXES[method]}-conv4-omniglot-{shots}shot"


def parser(description: str | None, work: str, out: str) -> argparse.ArgumentParser:
    """Return a parser with --work, --data and --out, under these names in runs/ and benchmarks/results/."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--work", type=Path, default=ROOT / "runs" / work, help="where runs are kept")
    made.add_argument("--data", type=Path, default=data_directory(), help="directory of omniglot28.npz")
    made.add_argument("--out", type=Path, default=RESULTS / out, help="the results file")
    return made


def data_directory() -> Path:
    """Return where the data sets are: EDGE_ADAPT_DATA, or shared/data beside the checkout."""
    return Path(os.environ.get("EDGE_ADAPT_DATA", ROOT.parent / "shared" / "data"))


def trained(recipe: str, run: Path, data: Path, settings: Mapping[str, object] | None = None) -> Path:
    """Meta-train on one thread, go on from the checkpoint, or leave a finished run of the same settings alone.

    Raises:
        subprocess.CalledProcessError: training failed, or `run` was started with other settings.
    """
    resume = ["--resume"] if (run / "checkpoint.pt").exists() else []
    changes = [word for name, value in (settings or {}).items() for word in ("--set", f"{name}={value}")]
    command("meta-train", "run", recipe, "--data", data, "--out", run, "--threads", 1, *changes, *resume)
    return run


def exported(run: Path) -> Path:
    """Export a run beside itself, unless that was done before."""
    from edge_adapt.export import export_bundle

    bundle = run.with_name(run.name + "-bundle")
    if not bundle.exists():
        export_bundle(run, bundle)
    return bundle


def most_frugal(bundle: Path, samples: int) -> Plan:
    """Return the plan with the smallest arena that loses nothing: all step sizes used, all channels, float32."""
    from edge_adapt.edge import Bundle

    plans = Bundle.open(bundle).frontier(dynamic_budget=ROOMY, samples=samples)
    lossless = [
        plan
        for plan in plans
        if not any(plan.freezing.layers)
        and not plan.cap_cut
        and (plan.choice.saved_bits, plan.choice.cache_bits) == FLOAT32
    ]
    return min(lossless, key=lambda plan: plan.dynamic_bytes)


def frozen_layers(layers: list[list[str]], bundle: Path) -> list[str]:
    """Return the layers that are updated at no step; `layers` are those that are, per step."""
    updated = {name for step in layers for name in step}
    manifest = json.loads((bundle / "manifest.json").read_text())
    return [layer["name"] for layer in manifest["layers"] if layer["name"] not in updated]


def command(tool: str, *arguments: object) -> Any:
    """Run one of our commands in a process of its own; return its JSON output, if it printed any."""
    line = [str(Path(sys.executable).with_name(tool)), *map(str, arguments)]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if "--json" in line else None


def keep(row: dict[str, Any], out: Path, key: Callable[[dict[str, Any]], Any]) -> None:
    """Put a row into a results file, in place of an older one with the same key; rows are sorted by it."""
    rows = json.loads(out.read_text()) if out.exists() else []
    rows = sorted([*(old for old in rows if key(old) != key(row)), row], key=key)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".tmp")
    partial.write_text(json.dumps(rows, indent=1) + "\n")
    partial.replace(out)
