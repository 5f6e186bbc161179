"""The model zoo at the papers' sizes: parameters, multiply-accumulates, export time, planned memory.

python benchmarks/zoo.py                  one row per backbone, and the table in docs/zoo.md
python benchmarks/zoo.py --only vit mlp   these rows, printed only
python benchmarks/zoo.py --json           the rows as one JSON object, nothing written
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from edge_adapt.cloud.models import BACKBONES, build_backbone
from edge_adapt.edge import Bundle
from edge_adapt.edge.plan import search_plan
from edge_adapt.export import export_bundle
from pages import rewrite
from torch.utils.flop_counter import FlopCounterMode

OUTPUTS, SAMPLES = 10, 25


@dataclass(frozen=True)
class Row:
    """One backbone with 10 outputs.

    Attributes:
        name: in `BACKBONES`.
        sample_shape: the paper's.
        parameters: of the module.
        macs: multiply-accumulates of a forward pass, convolutions and products only.
        layers: that can have a step size of their own.
        operations: of the program, all sections.
        export_seconds: capture, differentiation, graphs, self-test, everything checked.
        head_bytes: planned dynamic peak of adapting the last layer, 25 samples one by one.
        whole_bytes: the same for all layers.
    """

    name: str
    sample_shape: tuple[int, ...]
    parameters: int
    macs: int
    layers: int
    operations: int
    export_seconds: float
    head_bytes: int
    whole_bytes: int


def main() -> None:
    """Measure, print, and put the table into the docs."""
    parser = argparse.ArgumentParser(description="Parameters, work, export time and memory of the model zoo.")
    parser.add_argument("--only", nargs="+", default=list(BACKBONES), choices=list(BACKBONES), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print JSON, write nothing")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only:
        print(f"{name} ...", file=sys.stderr)
        rows.append(measure(name))
    if arguments.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    print(render(rows), end="")
    if len(rows) == len(BACKBONES):
        rewrite("docs/zoo.md", {"zoo": render(rows)})


def measure(name: str) -> Row:
    """Count, export and plan one backbone at its paper's size."""
    shape = BACKBONES[name].sample_shape
    module = build_backbone(name, shape, OUTPUTS, 0).eval()
    example = torch.zeros(1, *shape)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(example)
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        path = export_bundle(module, Path(scratch) / "bundle", example_input=example)
        seconds = time.perf_counter() - started
        program = Bundle.open(path).files.program
        whole = np.ones((1, len(program.layers)), np.float32)
        head = np.zeros_like(whole)
        head[:, -1] = 1
        peaks = [search_plan(program, a, SAMPLES, 1, micro_batch=1).dynamic_bytes for a in (head, whole)]
    parameters = sum(value.numel() for value in module.parameters())
    operations = sum(1 for _ in program.ops())
    macs = counter.get_total_flops() // 2
    return Row(
        name, shape, parameters, macs, len(program.layers), operations, round(seconds, 1), peaks[0], peaks[1]
    )


def render(rows: list[Row]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| backbone | sample | parameters | MACs | layers | operations | export, s | head, MB | all layers, MB |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        shape = " x ".join(map(str, row.sample_shape))
        lines.append(
            f"| {row.name} | {shape} | {row.parameters:,} | {row.macs / 1e6:,.1f} M | {row.layers} "
            f"| {row.operations:,} | {row.export_seconds} | {row.head_bytes / 1e6:.2f} | {row.whole_bytes / 1e6:.2f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
