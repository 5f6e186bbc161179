"""Time and memory of one adaptation: native, onnxruntime-training, stock onnxruntime, PyTorch.

python benchmarks/edge.py                                  all cases at one and two threads, as a table
python benchmarks/edge.py --case conv4-all --threads 1     a part of them
python benchmarks/edge.py --json                           the rows as JSON
python benchmarks/edge.py --out benchmarks/results/edge.json   also kept; benchmarks/speed.py puts them into the docs

Every measurement is a fresh process, engines take turns, medians over rounds. `seconds`: all gradient steps, without
loading; `measured_peak_bytes`: growth of the resident set above the state after the imports, loading included.
Engines other than native take --micro-batch samples at a time. onnxruntime-training runs through its C binding, in a
virtual environment of its own that is made once (EDGE_ADAPT_ORT_TRAINING names one that exists).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from edge_adapt.edge.bench import MODULE, PYTHON_VARIABLE, Comparison, Contender, compare
from edge_adapt.edge.bench_job import Job
from edge_cases import CASES, ROOT, bundle_of
from environments import ort_training_environment
from machine import machine

ENGINES = ("native", "reference", "ort-training", "onnxruntime", "torch")
USUAL = ("native", "ort-training", "onnxruntime", "torch")
WIDTHS = (14, 10, 7, 10, 7, 10, 7, 12, 10)
TORCH = str(Path(__file__).with_name("torch_engine.py"))
Row = dict[str, Any]


def main() -> None:
    """Measure what is asked for."""
    args = _arguments()
    contenders = [_contender(name, args.cache) for name in args.engine or USUAL]
    rows: list[Row] = []
    for name in args.case or CASES:
        for threads in args.threads or [1, 2]:
            result = measure(name, threads, contenders, args)
            for engine, reason in result.not_run.items():
                print(f"{name}: {engine} did not run: {reason}", file=sys.stderr)
            about = {"memory_budget": args.memory_budget or CASES[name].memory_budget, "machine": machine()}
            found = [{"case": name, **row, **about} for row in result.rows]
            if not args.json:
                print(table(found), flush=True)
            if args.out is not None:
                keep(found, args.out)
            rows += found
    if args.json:
        print(json.dumps(rows, indent=1))


def measure(name: str, threads: int, contenders: list[Contender], args: argparse.Namespace) -> Comparison:
    """Measure one case at one number of threads."""
    case, bundle = CASES[name], bundle_of(name, args.cache)
    budget = args.memory_budget or case.memory_budget
    job = Job(str(bundle), "", threads, case.samples, case.steps, args.micro_batch, budget)
    return compare(contenders, job, args.rounds)


def table(rows: list[Row]) -> str:
    """Return the rows of one case as a table for people, with what is to be reached."""
    case = CASES[rows[0]["case"]]
    head = (
        f"{rows[0]['case']}, {rows[0]['threads']} thread(s), budget of native {_mb(rows[0]['memory_budget'])} MB,"
        f" goals {case.time_goal}x time, {case.memory_goal}x memory"
    )
    names = ("engine", "seconds", "x", "cpu s", "x", "peak MB", "x", "planned MB", "arena MB")
    lines = [head, "".join(f"{name:>{width}}" for name, width in zip(names, WIDTHS, strict=True))]
    for row in rows:
        cells = (
            row["engine"],
            f"{row['seconds']:.3f}",
            _ratio(row["time_ratio"]),
            f"{row['cpu_seconds']:.3f}",
            _ratio(row["cpu_ratio"]),
            _mb(row["measured_peak_bytes"]),
            _ratio(row["memory_ratio"]),
            _mb(row["planned_peak_bytes"]),
            _mb(row["dynamic_bytes"]),
        )
        chosen = (row["micro_batch"], row["schedule"], row["saved_bits"], row["cache_bits"])
        how = ", ".join(str(value) for value in chosen if value is not None)
        lines.append("".join(f"{cell:>{w}}" for cell, w in zip(cells, WIDTHS, strict=True)) + f"  {how}")
    return "\n".join(lines) + "\n"


def keep(rows: list[Row], out: Path) -> None:
    """Put the rows into the results file, in place of older ones of the same case, engine and threads."""
    kept = json.loads(out.read_text()) if out.exists() else []
    new = {_key(row) for row in rows}
    merged = sorted([row for row in kept if _key(row) not in new] + rows, key=_place)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".tmp")
    partial.write_text(json.dumps(merged, indent=1) + "\n")
    partial.replace(out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=[*CASES], action="append", help="default: all")
    parser.add_argument("--engine", choices=ENGINES, action="append", help=f"default: {', '.join(USUAL)}")
    parser.add_argument("--threads", type=int, action="append", help="default: 1 and 2")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each engine (default 5)")
    parser.add_argument("--micro-batch", type=int, default=1, help="of engines that do not plan (default 1)")
    parser.add_argument("--memory-budget", type=int, help="bytes, of native; default: the case's")
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "runs" / "edge-benchmark", help="bundles, environment"
    )
    parser.add_argument("--out", type=Path, help="a results file to put the rows into")
    parser.add_argument("--json", action="store_true", help="print the rows as a JSON list")
    return parser.parse_args()


def _contender(name: str, cache: Path) -> Contender:
    """Return the command that measures an engine; bundles need onnxruntime-training's artifacts in any case."""
    if PYTHON_VARIABLE not in os.environ:
        os.environ[PYTHON_VARIABLE] = str(ort_training_environment(cache / "ort-training"))
    if name == "torch":
        return Contender(name, (sys.executable, TORCH))
    python = os.environ[PYTHON_VARIABLE] if name == "ort-training" else sys.executable
    return Contender(name, (python, "-m", MODULE))


def _key(row: Row) -> tuple[str, str, int]:
    return row["case"], row["engine"], row["threads"]


def _place(row: Row) -> tuple[int, int, int]:
    return [*CASES].index(row["case"]), row["threads"], ENGINES.index(row["engine"])


def _mb(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
