"""Native convolution kernels beside PyTorch (oneDNN), batch 1, alternating in one process.

OMP_NUM_THREADS=1 python benchmarks/kernels.py [--network resnet12] [--variant avx2] [--threads 2] [--json]

With one thread times are processor time of the thread, so that other programs on the machine disturb little; with
more, wall time. A cell is native / torch GFLOP/s = ratio of the medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from edge_adapt.edge import native

KINDS = ("Conv", "ConvInputGrad", "ConvWeightGrad")
WARM_UP = 2


@dataclass(frozen=True)
class Layer:
    """A square convolution that keeps the side (divided by the stride)."""

    channels: int
    outputs: int
    side: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1

    @property
    def name(self) -> str:
        """Channels, side and what is not a plain 3x3."""
        extra = f" k{self.kernel}" if self.kernel != 3 else ""
        extra += f" s{self.stride}" if self.stride > 1 else ""
        extra += " depthwise" if self.groups > 1 else ""
        return f"{self.channels}->{self.outputs} @{self.side}{extra}"

    @property
    def out(self) -> int:
        """Side of the result."""
        return (self.side - 1) // self.stride + 1

    @property
    def operations(self) -> int:
        """Twice the multiply-adds of each of the three kernels."""
        return 2 * self.channels // self.groups * self.outputs * self.kernel**2 * self.out**2

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the native kernels."""
        pads = [self.kernel // 2] * 4
        return {"strides": [self.stride] * 2, "pads": pads, "dilations": [1, 1], "groups": self.groups}


NETWORKS = {
    "resnet12": [
        Layer(3, 64, 84), Layer(64, 64, 84), Layer(64, 128, 42), Layer(128, 128, 42), Layer(128, 256, 21),
        Layer(256, 256, 21), Layer(256, 512, 10), Layer(512, 512, 10),
    ],
    "conv4": [Layer(3, 32, 84), Layer(32, 32, 42), Layer(32, 32, 21), Layer(32, 32, 10)],
    "mobilenetv2": [
        Layer(3, 32, 224, stride=2), Layer(32, 32, 112, groups=32), Layer(16, 96, 112, kernel=1),
        Layer(96, 96, 112, stride=2, groups=96), Layer(96, 24, 56, kernel=1), Layer(64, 384, 14, kernel=1),
        Layer(384, 384, 14, groups=384), Layer(384, 64, 14, kernel=1), Layer(960, 960, 7, groups=960),
        Layer(960, 320, 7, kernel=1), Layer(320, 1280, 7, kernel=1),
    ],
    "resnet18": [Layer(3, 64, 224, kernel=7, stride=2), Layer(64, 128, 56, stride=2), Layer(64, 128, 56, 1, 2)],
}  # fmt: skip


def main() -> None:
    """Print one line per layer: rates of the three kernels and their ratios to PyTorch's."""
    parser = argparse.ArgumentParser(description="Native kernels beside PyTorch.")
    parser.add_argument("--network", choices=NETWORKS, default="resnet12")
    parser.add_argument("--variant", help="instruction set (default: the best)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    library = native.load(chosen.variant) if chosen.variant else native.best()
    rows = [
        row
        for layer in NETWORKS[chosen.network]
        for row in measure(library, layer, chosen.threads, chosen.rounds)
    ]
    if chosen.json:
        print(json.dumps(rows))
    else:
        show(rows, library.instruction_set)


def measure(library: native.Library, layer: Layer, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each kernel of a layer."""
    ours, theirs = native_calls(library, layer, threads), torch_calls(layer)
    clock = time.thread_time if threads == 1 else time.perf_counter
    rows = []
    for kind in KINDS:
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds + WARM_UP):
            for found, run in zip(times, (ours[kind][0], theirs[kind]), strict=True):
                started = clock()
                run()
                found.append(clock() - started)
        rates = [layer.operations / statistics.median(found[WARM_UP:]) * 1e-9 for found in times]
        rows.append(
            {
                "layer": layer.name,
                "kernel": kind,
                "threads": threads,
                "native_gflops": round(rates[0], 1),
                "torch_gflops": round(rates[1], 1),
                "ratio": round(rates[0] / rates[1], 2),
                "workspace_bytes": ours[kind][1],
            }
        )
    return rows


def native_calls(
    library: native.Library, layer: Layer, threads: int
) -> dict[str, tuple[Callable[[], None], int]]:
    """Return the kernels over arrays of the layer's shapes, each with its workspace's size."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, layer.channels, layer.side, layer.side)).astype(np.float32)
    gy = rng.normal(size=(1, layer.outputs, layer.out, layer.out)).astype(np.float32)
    kernel = (layer.kernel, layer.kernel)
    w = rng.normal(size=(layer.outputs, layer.channels // layer.groups, *kernel)).astype(np.float32)
    one = np.ones(1, np.float32)
    calls = {
        "Conv": ([x, w], [np.empty_like(gy)]),
        "ConvInputGrad": ([gy, w], [np.empty_like(x)]),
        "ConvWeightGrad": ([x, gy, one], [np.zeros_like(w)]),
    }
    return {kind: prepared(library, kind, *arrays, layer.attrs, threads) for kind, arrays in calls.items()}


def prepared(
    library: native.Library,
    kind: str,
    inputs: list[Any],
    outputs: list[Any],
    attrs: dict[str, Any],
    threads: int,
) -> tuple[Callable[[], None], int]:
    """Return one kernel with its workspace, and how large that is."""
    shapes = [[a.shape for a in arrays] for arrays in (inputs, outputs)]
    size = library.workspace_bytes(kind, shapes[0], shapes[1], attrs, threads)
    workspace = np.empty(size + 64, np.uint8)
    start = -workspace.ctypes.data % 64
    memory = workspace[start : start + size]
    return lambda: library.run(kind, inputs, outputs, attrs, memory, threads), size


def torch_calls(layer: Layer) -> dict[str, Callable[[], None]]:
    """Return PyTorch's kernels for the same layer."""
    x = torch.randn(1, layer.channels, layer.side, layer.side)
    gy = torch.randn(1, layer.outputs, layer.out, layer.out)
    w = torch.randn(layer.outputs, layer.channels // layer.groups, layer.kernel, layer.kernel)
    stride, padding = [layer.stride] * 2, [layer.kernel // 2] * 2

    def backward(*wanted: bool) -> Callable[[], None]:
        geometry = (stride, padding, [1, 1], False, [0, 0], layer.groups)
        return lambda: torch.ops.aten.convolution_backward(gy, x, w, None, *geometry, [*wanted, False])

    def forward() -> None:
        with torch.no_grad():
            torch.nn.functional.conv2d(x, w, None, stride, padding, 1, layer.groups)

    return {"Conv": forward, "ConvInputGrad": backward(True, False), "ConvWeightGrad": backward(False, True)}


def show(rows: list[dict[str, Any]], instruction_set: str) -> None:
    """Print a table."""
    print(f"native ({instruction_set}) / torch {torch.__version__} GFLOP/s, {rows[0]['threads']} thread(s)")
    print(f"{'layer':>22}" + "".join(f"{kind:>24}" for kind in KINDS) + "   workspace kB")
    for layer in dict.fromkeys(row["layer"] for row in rows):
        cells = [row for row in rows if row["layer"] == layer]
        texts = ["{native_gflops:.0f} / {torch_gflops:.0f} = {ratio:.2f}".format(**cell) for cell in cells]
        sizes = ", ".join(f"{cell['workspace_bytes'] / 1000:.0f}" for cell in cells)
        print(f"{layer:>22}" + "".join(f"{text:>24}" for text in texts) + f"   {sizes}")


if __name__ == "__main__":
    main()
