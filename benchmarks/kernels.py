"""Native kernels beside PyTorch (oneDNN) on ResNet12's 3x3 convolutions, batch 1, alternating in one process.

OMP_NUM_THREADS=1 python benchmarks/kernels.py [--variant avx2] [--threads 2] [--rounds 15] [--json]

With one thread times are processor time of the thread, so that other programs on the machine disturb little; with
more, wall time. A row is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from edge_adapt.edge import native

LAYERS = {
    "3->64 @84": (3, 64, 84),
    "64->64 @84": (64, 64, 84),
    "64->128 @42": (64, 128, 42),
    "128->128 @42": (128, 128, 42),
    "128->256 @21": (128, 256, 21),
    "256->256 @21": (256, 256, 21),
    "256->512 @10": (256, 512, 10),
    "512->512 @10": (512, 512, 10),
}
ATTRS = {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "groups": 1}
KINDS = ("Conv", "ConvInputGrad", "ConvWeightGrad")


def main() -> None:
    """Print one line per layer: rates of the three kernels and their ratios to PyTorch's."""
    parser = argparse.ArgumentParser(description="Native kernels beside PyTorch.")
    parser.add_argument("--variant", help="instruction set (default: the best)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    library = native.load(chosen.variant) if chosen.variant else native.best()
    rows = [row for layer in LAYERS for row in measure(library, layer, chosen.threads, chosen.rounds)]
    if chosen.json:
        print(json.dumps(rows))
    else:
        show(rows, library.instruction_set)


def measure(library: native.Library, layer: str, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each kernel of a layer."""
    channels, outputs, side = LAYERS[layer]
    operations = 2 * channels * outputs * 9 * side * side
    ours, theirs = native_calls(library, layer, threads), torch_calls(layer)
    clock = time.thread_time if threads == 1 else time.perf_counter
    rows = []
    for kind in KINDS:
        if kind == "ConvInputGrad" and channels == 3:
            continue
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds + 2):
            for found, run in zip(times, (ours[kind], theirs[kind]), strict=True):
                started = clock()
                run()
                found.append(clock() - started)
        native_rate, torch_rate = (operations / statistics.median(found[2:]) * 1e-9 for found in times)
        rows.append(
            {
                "layer": layer,
                "kernel": kind,
                "threads": threads,
                "native_gflops": round(native_rate, 1),
                "torch_gflops": round(torch_rate, 1),
                "ratio": round(native_rate / torch_rate, 2),
            }
        )
    return rows


def native_calls(library: native.Library, layer: str, threads: int) -> dict[str, Callable[[], None]]:
    """Return the kernels over arrays of the layer's shapes."""
    channels, outputs, side = LAYERS[layer]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, channels, side, side)).astype(np.float32)
    gy = rng.normal(size=(1, outputs, side, side)).astype(np.float32)
    w = rng.normal(size=(outputs, channels, 3, 3)).astype(np.float32)
    one = np.ones(1, np.float32)
    calls = {
        "Conv": ([x, w], [np.empty_like(gy)]),
        "ConvInputGrad": ([gy, w], [np.empty_like(x)]),
        "ConvWeightGrad": ([x, gy, one], [np.zeros_like(w)]),
    }
    return {kind: prepared(library, kind, *arrays, threads) for kind, arrays in calls.items()}


def prepared(
    library: native.Library, kind: str, inputs: list[Any], outputs: list[Any], threads: int
) -> Callable[[], None]:
    """Return one kernel with its workspace."""
    shapes = [[a.shape for a in arrays] for arrays in (inputs, outputs)]
    size = library.workspace_bytes(kind, shapes[0], shapes[1], ATTRS, threads)
    workspace = np.empty(size + 64, np.uint8)
    start = -workspace.ctypes.data % 64
    memory = workspace[start : start + size]
    return lambda: library.run(kind, inputs, outputs, ATTRS, memory, threads)


def torch_calls(layer: str) -> dict[str, Callable[[], None]]:
    """Return PyTorch's kernels for the same layer."""
    channels, outputs, side = LAYERS[layer]
    x, gy = torch.randn(1, channels, side, side), torch.randn(1, outputs, side, side)
    w = torch.randn(outputs, channels, 3, 3)

    def backward(*wanted: bool) -> Callable[[], None]:
        geometry = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        return lambda: torch.ops.aten.convolution_backward(gy, x, w, None, *geometry, [*wanted, False])

    def forward() -> None:
        with torch.no_grad():
            torch.nn.functional.conv2d(x, w, padding=1)

    return {"Conv": forward, "ConvInputGrad": backward(True, False), "ConvWeightGrad": backward(False, True)}


def show(rows: list[dict[str, Any]], instruction_set: str) -> None:
    """Print a table."""
    print(
        f"GFLOP/s, native ({instruction_set}) / torch {torch.__version__} = ratio, {rows[0]['threads']} thread(s)"
    )
    print(f"{'layer':>14}" + "".join(f"{kind:>26}" for kind in KINDS))
    for layer in LAYERS:
        cells = {row["kernel"]: row for row in rows if row["layer"] == layer}
        texts = [
            "{native_gflops:.0f} / {torch_gflops:.0f} = {ratio:.2f}".format(**cells[kind])
            if kind in cells
            else "-"
            for kind in KINDS
        ]
        print(f"{layer:>14}" + "".join(f"{text:>26}" for text in texts))


if __name__ == "__main__":
    main()
