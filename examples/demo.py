"""The whole road on the built-in glyphs: meta-train, export, plan, adapt to an unseen script, predict.

    make demo            or    python examples/demo.py --out runs/demo

Every step is a command that you can type yourself, printed before it runs. A demo that was stopped goes on
where it was when started again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from edge_adapt.cloud.tasks import EpisodeSampler, load_dataset
from edge_adapt.edge import Bundle
from numpy.typing import NDArray

RECIPE = "pmeta-conv4-glyphs"
WAYS, SHOTS, QUERIES = 5, 5, 15
BUDGET = "1MB"
GOOD, BAD = "#0072b2", "#d55e00"


def main() -> None:
    """Run the demo and end with a short table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where everything is left")
    parser.add_argument("--set", action="append", default=[], help="passed on to meta-train run")
    args = parser.parse_args()
    started = time.perf_counter()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    prepare_bundle(out, args.set)
    names = write_task(out)
    summary = adapt_and_predict(out)
    draw_predictions(out, names)
    print_summary(out, summary, time.perf_counter() - started)


def prepare_bundle(out: Path, settings: list[str]) -> None:
    """Meta-train and export, unless an earlier demo already did."""
    run, bundle = out / "train", out / "bundle"
    if not (run / "result.json").exists():
        resume = ["--resume"] if (run / "checkpoint.pt").exists() else []
        changes = [word for setting in settings for word in ("--set", setting)]
        command("meta-train", "run", RECIPE, "--out", run, *resume, *changes)
    if not bundle.exists():
        command("export-bundle", run, "-o", bundle)


def write_task(out: Path) -> list[str]:
    """Draw one task from a script that meta-training has not seen; return its class names."""
    dataset = load_dataset("glyphs", "test")
    episode = EpisodeSampler(dataset, ways=WAYS, shots=SHOTS, queries=QUERIES, seed=1).episode(0)
    np.savez_compressed(out / "support.npz", images=episode.support_x, labels=episode.support_y)
    np.savez_compressed(out / "query.npz", images=episode.query_x, labels=episode.query_y)
    return [f"class {index}" for index in range(WAYS)]


def adapt_and_predict(out: Path) -> dict[str, Any]:
    """Plan, adapt within the budget, predict; write and return summary.json."""
    bundle, adapted = out / "bundle", out / "adapted"
    budget = ["--memory-budget", BUDGET]
    command("edge-adapt", "plan", bundle, *budget, "--plot", out / "arena.png")
    verb = ["run", bundle, "--support", out / "support.npz", "-o", adapted]
    report = command("edge-adapt", *verb, *budget, "--json", read=True)
    rest = ["--bundle", bundle, "--input", out / "query.npz", "--json"]
    predictions = command("edge-adapt", "predict", adapted, *rest, read=True)
    (out / "predictions.json").write_text(json.dumps(predictions, indent=1) + "\n")
    query = np.load(out / "query.npz")
    before = Bundle.open(bundle).predict(query["images"]).argmax(axis=1)
    summary = {
        "accuracy_before": float(np.mean(before == query["labels"])),
        "accuracy_after": predictions["accuracy"],
        **{key: report[key] for key in ("planned_peak_bytes", "measured_peak_bytes", "dynamic_bytes")},
        **{key: report[key] for key in ("measured_dynamic_bytes", "micro_batch", "seconds")},
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def draw_predictions(out: Path, names: list[str]) -> None:
    """Draw each class: its support samples, then its queries, framed by whether they were recognised."""
    support, query = np.load(out / "support.npz"), np.load(out / "query.npz")
    rows = json.loads((out / "predictions.json").read_text())["predictions"]
    figure, axes = plt.subplots(WAYS, SHOTS + 10, figsize=(12, 4.6), layout="constrained")
    for index, line in enumerate(axes):
        mine = np.flatnonzero(query["labels"] == index)[:10]
        for axis, image in zip(line[:SHOTS], support["images"][support["labels"] == index], strict=True):
            frame(axis, image, "0.6")
        for axis, row in zip(line[SHOTS:], mine, strict=True):
            right = rows[row]["class"] == str(index)
            frame(axis, query["images"][row], GOOD if right else BAD)
            axis.set_xlabel("" if right else f"as {rows[row]['class']}", color=BAD, fontsize=8, labelpad=1)
        line[0].set_ylabel(names[index])
    axes[0][SHOTS // 2].set_title("5 samples to adapt from", fontsize=10)
    axes[0][SHOTS + 5].set_title("predictions: blue right, orange wrong (and taken for what)", fontsize=10)
    figure.savefig(out / "predictions.png", dpi=110)
    plt.close(figure)


def frame(axis: Any, image: NDArray[np.uint8], colour: str) -> None:
    """Show one image in a coloured frame."""
    axis.imshow(image[..., 0], cmap="gray_r")
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=2.5)


def print_summary(out: Path, summary: dict[str, Any], seconds: float) -> None:
    """Print the closing table."""
    measured = summary["measured_peak_bytes"]
    rows = [
        ("accuracy before adaptation", f"{summary['accuracy_before']:.1%}"),
        ("accuracy after, unseen script", f"{summary['accuracy_after']:.1%}"),
        ("memory budget", BUDGET),
        ("planned peak", f"{summary['planned_peak_bytes'] / 1e6:.3f} MB"),
        ("measured peak", "not measured here" if measured is None else f"{measured / 1e6:.3f} MB"),
        ("planned arena", f"{summary['dynamic_bytes'] / 1e6:.3f} MB"),
        ("adaptation", f"{summary['seconds']:.2f} s"),
        ("the whole demo", f"{seconds:.0f} s"),
    ]
    print(f"\n{WAYS} classes of an unseen script, {SHOTS} samples each; everything is in {out}/")
    for name, value in rows:
        print(f"  {name:32s} {value:>18s}")


def command(tool: str, *arguments: object, read: bool = False) -> Any:
    """Print and run one of our commands; with `read`, return the JSON object it printed."""
    words = [tool, *map(str, arguments)]
    print("$", shlex.join(words), flush=True)
    path = Path(sys.executable).with_name(tool)
    done = subprocess.run([path, *words[1:]], check=False, stdout=subprocess.PIPE if read else None)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout) if read else None


if __name__ == "__main__":
    main()
