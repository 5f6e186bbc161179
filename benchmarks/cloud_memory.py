"""Peak memory of one outer step on one task, by method: what torch's allocator held at most, beyond what was alive.

python benchmarks/cloud_memory.py            all cells, into benchmarks/results/cloud_memory.json
python benchmarks/cloud_memory.py --json     the rows as JSON, nothing is written

4Conv, float32, CPU, normal noise, 5 query samples per class; 1 shot at 28 pixels (grey), 5 shots at 84 (RGB).
benchmarks/cloud_tables.py puts the rows into docs/methods.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from allocations import highest_bytes
from edge_adapt.cloud.inner.base import MethodConfig
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.outer import METHODS
from machine import machine
from maml_steps import Problem

OUT = Path(__file__).with_name("results") / "cloud_memory.json"
CHECKPOINTED = {"checkpoint_steps": True}
SMALL, LARGE = 28, 84
Cell = tuple[str, dict[str, Any], int, int]
CELLS: list[Cell] = [
    ("maml", {}, SMALL, 20),
    ("maml", CHECKPOINTED, SMALL, 20),
    *(
        (name, {}, SMALL, k)
        for name in ("mrml", "imaml", "leap", "fomaml", "fomaml++", "reptile")
        for k in (1, 50)
    ),
    ("maml", {}, LARGE, 5),
    ("maml", CHECKPOINTED, LARGE, 5),
    *((name, {}, LARGE, 5) for name in ("anil", "mrml", "imaml", "fomaml", "reptile")),
]
"""Method, its settings, image size, inner steps."""


def main() -> None:
    """Measure every cell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the rows, write nothing")
    as_json: bool = parser.parse_args().json
    torch.set_num_threads(1)
    rows = [row_of(*cell) for cell in CELLS]
    text = json.dumps(rows, indent=1) + "\n"
    if as_json:
        print(text, end="")
    else:
        OUT.write_text(text)


def row_of(name: str, settings: dict[str, Any], image_size: int, inner_steps: int) -> dict[str, Any]:
    """One cell with its figures."""
    return {
        "method": name,
        **settings,
        "image_size": image_size,
        "inner_steps": inner_steps,
        "peak_bytes": peak_bytes(name, settings, image_size, inner_steps),
        "machine": {**machine(), "torch": torch.__version__},
    }


def peak_bytes(name: str, settings: dict[str, Any], image_size: int, inner_steps: int) -> int:
    """Highest number of bytes alive at once in one outer step, beyond those alive before it."""
    shots = 1 if image_size == SMALL else 5
    problem = Problem(image_size, inner_steps, tasks=1, shots=shots, queries=5)
    network = Network(problem.module(), problem.sample_shape)
    config = MethodConfig(inner_steps=inner_steps, inner_step_size=0.01, tasks_per_chunk=1, **settings)
    method = METHODS[name](network, config)
    meta, batch = method.init(0), problem.batch(0)
    return highest_bytes(lambda: method.meta_gradient(meta, batch, 0.0))


if __name__ == "__main__":
    main()
