"""Tasks per second and memory of second-order MAML: edge-adapt beside `higher` and `torchopt` (extra `bench`).

python benchmarks/cloud_throughput.py              28 and 84 pixels, five rounds, one thread; a table
python benchmarks/cloud_throughput.py --json       the rows as JSON
python benchmarks/cloud_throughput.py --quick      one round of one step (is it installed, what to expect)
python benchmarks/cloud_throughput.py --out benchmarks/results/cloud_throughput.json
                                                   also kept; benchmarks/cloud_tables.py puts them into docs/methods.md

4Conv with GroupNorm, 5-way 5-shot, 15 queries per class, K = 5, 4 tasks per outer step. One outer step is the loss and
its gradient; Adam is not in it, nor the first two steps of a process (they compile and take memory). Every
measurement is a fresh process, libraries take turns, medians over the rounds.
`peak_bytes`: growth of the resident set above the state before the first outer step. Where torch sees a GPU it is
measured as well (--device cpu: not), all tasks at once and our own compiled (--no-compile: not).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import machine
from maml_steps import LIBRARIES, Problem
from throughput_job import Job

USUAL = ("edge-adapt", "higher", "torchopt")
TASKS_PER_CHUNK = {28: 4, 84: 1}
"""Of our own, on a CPU, by image size: what the recipes at that size have; on a GPU always all tasks."""
SCRIPT = Path(__file__).with_name("throughput_job.py")
Row = dict[str, Any]


def main() -> None:
    """Measure what is asked for."""
    args = _arguments()
    rows: list[Row] = []
    for problem in problems(args):
        for threads in args.threads or [1]:
            rows += measure(problem, threads, args)
    if args.out is not None:
        partial = args.out.with_suffix(".tmp")
        partial.write_text(json.dumps(rows, indent=1) + "\n")
        partial.replace(args.out)
    print(json.dumps(rows, indent=1) if args.json else table(rows))


def problems(args: argparse.Namespace) -> list[Problem]:
    """Every image size on every device that is there."""
    devices = [args.device] if args.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [
        Problem(
            size,
            inner_steps=args.inner_steps,
            tasks=args.tasks,
            device=device,
            tasks_per_chunk=args.tasks if device == "cuda" else TASKS_PER_CHUNK.get(size, 1),
            compile_steps=(device == "cuda") if args.compile is None else args.compile,
        )
        for device in devices
        for size in args.image_size or [28, 84]
    ]


def measure(problem: Problem, threads: int, args: argparse.Namespace) -> list[Row]:
    """Measure every library `rounds` times, in turn; one that cannot run is left out, with its reason on stderr."""
    found: dict[str, list[Row]] = {name: [] for name in args.library or USUAL}
    for _ in range(1 if args.quick else args.rounds):
        for name in list(found):
            job = Job(name, problem, 1 if args.quick else args.steps, threads)
            try:
                found[name].append(run(job))
            except RuntimeError as error:
                del found[name]
                print(f"{name}, {problem.image_size} pixels: did not run: {error}", file=sys.stderr)
    return [row_of(name, problem, threads, measured) for name, measured in found.items()]


def run(job: Job) -> Row:
    """Do one job in a process of its own; raises RuntimeError with the last line that it said."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(job.threads))
    line = [sys.executable, "-W", "ignore", str(SCRIPT), job.to_json()]
    done = subprocess.run(line, env={**os.environ, **threads}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    figures: Row = json.loads(done.stdout.splitlines()[-1])
    return figures


def row_of(name: str, problem: Problem, threads: int, measured: Iterable[Row]) -> Row:
    """Medians over the rounds; a round's time is the median of its steps."""
    measured = list(measured)
    seconds = [median(row["seconds"]) for row in measured]
    return {
        "library": name,
        "device": problem.device,
        "compiled": name == "edge-adapt" and problem.compile_steps,
        "image_size": problem.image_size,
        "inner_steps": problem.inner_steps,
        "tasks_per_step": problem.tasks,
        "threads": threads,
        "tasks_per_second": problem.tasks / median(seconds),
        "tasks_per_cpu_second": problem.tasks / median(median(row["cpu_seconds"]) for row in measured),
        "peak_bytes": median(row["peak_bytes"] for row in measured),
        "rounds": seconds,
        "machine": {**machine(), "torch": torch.__version__},
    }


def table(rows: list[Row]) -> str:
    """Return the rows for people."""
    lines = ["library        device  px  threads  tasks/s  per cpu s  peak MB  seconds per step, by round"]
    for row in rows:
        figures = (row["tasks_per_second"], row["tasks_per_cpu_second"], row["peak_bytes"] / 1e6)
        rounds = " ".join(f"{value:.2f}" for value in row["rounds"])
        lines.append(
            f"{row['library']:14} {row['device']:6} {row['image_size']:3} {row['threads']:8} "
            "{:8.2f} {:10.2f} {:8.0f}  ".format(*figures)
            + rounds
        )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the rows as a JSON list")
    parser.add_argument("--quick", action="store_true", help="one round of one step each")
    parser.add_argument(
        "--library", choices=[*LIBRARIES], action="append", help=f"default: {', '.join(USUAL)}"
    )
    parser.add_argument(
        "--image-size", type=int, choices=[28, 84], action="append", help="default: 28 and 84"
    )
    parser.add_argument("--inner-steps", type=int, default=5, help="K (default 5)")
    parser.add_argument("--tasks", type=int, default=4, help="of one outer step (default 4)")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each library (default 5)")
    parser.add_argument("--steps", type=int, default=3, help="timed outer steps of each process (default 3)")
    parser.add_argument("--threads", type=int, action="append", help="of the CPU (default 1)")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: CPU, and the GPU if there is one")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="our own with method.compile_steps (default: on a GPU)",
    )
    parser.add_argument("--out", type=Path, help="a file to write the rows to, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
