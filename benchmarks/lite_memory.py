"""Peak memory of one outer step of ProtoNets on ResNet18 at 224 pixels, by support samples: with LITE, and without.

    python benchmarks/lite_memory.py                  the process: some ten minutes on one core, up to 12 GB
    python benchmarks/lite_memory.py --device cuda    the GPU's allocator
    python benchmarks/lite_memory.py --picture        draws docs/pictures/lite_memory.png from the results

Each cell is a process of its own that decodes JPEG files on demand, takes one step (gradient and Adam) and reports the
peak since just before it: the resident set with all libraries (VmHWM), or what the allocator held at most. 10 classes,
a query sample of each, GroupNorm, float32; a row of each cell in benchmarks/results/lite_memory.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from machine import machine
from PIL import Image
from trainings import keep

OUT = Path(__file__).with_name("results") / "lite_memory.json"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "lite_memory.png"
WAYS, H, CHUNK, SIZE = 10, 8, 8, 224
SUPPORTS = {8: (50, 100, 200, 500, 1000), None: (10, 20, 50, 100, 200)}
"""Support samples by h; without LITE up to what fits into 12 GB."""
ON_GPU = {8: (50, 100, 200, 500, 1000), None: (10, 20, 50, 100, 200, 500, 1000)}
BLUE, ORANGE = "#0072B2", "#D55E00"


def main() -> None:
    """Measure all cells, one cell, or draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--size", type=int, default=SIZE, help="pixels; rows of another size are kept only with --out"
    )
    parser.add_argument("--only", type=int, nargs="+", help="only these numbers of support samples")
    parser.add_argument("--out", type=Path, help=f"the results file; {OUT.name} unless --size is given")
    parser.add_argument("--picture", action="store_true", help="draw what was measured")
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell is not None:
        print(json.dumps(measured(**args.cell)))
    elif args.picture:
        draw(json.loads((args.out or OUT).read_text()), PICTURE)
    else:
        benchmark(args.device, args.size, args.only, args.out or (OUT if args.size == SIZE else None))


def benchmark(device: str, size: int, only: list[int] | None, out: Path | None) -> None:
    """Measure every cell in a fresh process, print its row and keep it in `out`."""
    supports = ON_GPU if device == "cuda" else SUPPORTS
    with TemporaryDirectory() as folder:
        write_images(Path(folder) / "images", max(count for counts in supports.values() for count in counts))
        for h, counts in supports.items():
            for count in counts if only is None else [count for count in counts if count in only]:
                row = row_of(Path(folder), device, size, h, count)
                print(json.dumps(row), flush=True)
                if out is not None:
                    keep(row, out, _cell)


def row_of(folder: Path, device: str, size: int, h: int | None, count: int) -> dict[str, Any]:
    """One cell."""
    cell = {"folder": str(folder), "device": device, "size": size, "h": h, "count": count}
    command = [sys.executable, __file__, "--cell", json.dumps(cell)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {
        "study": "memory",
        "learner": "protonets",
        "backbone": "resnet18",
        "n_support": count,
        "h": h,
        "image_size": size,
        "value": found["peak_bytes"],
        "ci95": None,
        "unit": "bytes",
        "device": device,
        "before_bytes": found["before_bytes"],
        "machine": {**machine(), **found["versions"]},
    }


def measured(folder: str, device: str, size: int, h: int | None, count: int) -> dict[str, Any]:
    """Peak of one step in this process, in bytes; what was in use before it."""
    import torch
    from edge_adapt.cloud.amortized import LEARNERS
    from edge_adapt.cloud.inner.base import MethodConfig
    from edge_adapt.cloud.lite import LiteConfig
    from edge_adapt.cloud.memory.peak import peak_bytes, reset_peak
    from edge_adapt.cloud.models import build_backbone
    from edge_adapt.cloud.run import adam
    from edge_adapt.cloud.tasks import CacheConfig, EpisodeSampler, load_dataset
    from edge_adapt.edge.inputs import InputSpec

    torch.set_num_threads(1)
    where = torch.device(device)
    spec = InputSpec(3, size, size, (0.5,) * 3, (0.25,) * 3)
    cache = CacheConfig(Path(folder) / "cache", (count + WAYS) * (spec.sample_bytes + 20))
    data = load_dataset(str(Path(folder) / "images"), "train", spec=spec, cache=cache)
    task = EpisodeSampler(data, ways=WAYS, shots=count // WAYS, queries=1, seed=0).task(0)
    module = build_backbone("resnet18", spec.shape, WAYS, seed=0)
    learner = LEARNERS["protonets"](module, spec.shape, MethodConfig(), LiteConfig(h=h, chunk=CHUNK))
    meta = learner.init(0).to(where)
    state = adam.init(meta.learned)
    reset_peak(where)
    before = peak_bytes(where)
    result = learner.meta_gradient(meta, [task], 0.0)
    adam.update(meta.learned, result.grads, state, dict.fromkeys(meta.learned, 1e-3))
    return {
        "peak_bytes": peak_bytes(where),
        "before_bytes": before,
        "versions": {"torch": torch.__version__, **_gpu(where)},
    }


def _gpu(device: Any) -> dict[str, str]:
    import torch

    return {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}


def write_images(folder: Path, supports: int) -> None:
    """Classes of smooth noise, JPEG of 256 x 224 pixels, for tasks of so many support samples and a query each."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind in range(WAYS):
            (folder / split / f"kind{kind}").mkdir(parents=True)
            for sample in range(supports // WAYS + 1 if split == "train" else 1):
                coarse = Image.fromarray(rng.integers(0, 256, (14, 16, 3), np.uint8))
                image = coarse.resize((256, 224), Image.Resampling.BICUBIC)
                image.save(folder / split / f"kind{kind}" / f"{sample}.jpg", quality=90)


def _cell(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["device"], row["image_size"], row["h"] or 0, row["n_support"]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Peak over support samples, with and without LITE; a panel for each device."""
    from matplotlib.figure import Figure

    titles = {"cpu": "process, resident set", "cuda": "GPU, allocator"}
    devices = [device for device in titles if any(row["device"] == device for row in rows)]
    figure = Figure(figsize=(1 + 4.2 * len(devices), 3.8), layout="constrained")
    panels = figure.subplots(1, len(devices), squeeze=False)[0]
    for axes, device in zip(panels, devices, strict=True):
        for h, colour, marker in ((H, BLUE, "o"), (None, ORANGE, "s")):
            cells = sorted(
                (row["n_support"], row["value"] / 1e9)
                for row in rows
                if row["device"] == device and row["h"] == h
            )
            if not cells:
                continue
            x, y = zip(*cells, strict=True)
            label = "without LITE" if h is None else f"LITE, h = {h}"
            axes.plot(x, y, color=colour, marker=marker, label=label)
            axes.annotate(f"{y[-1]:.2f} GB", (x[-1], y[-1]), (0, 6), textcoords="offset points", ha="center")
        axes.set_xscale("log")
        axes.set_ylim(0, 1.15 * max(row["value"] for row in rows if row["device"] == device) / 1e9)
        ticks = sorted({row["n_support"] for row in rows if row["device"] == device})
        axes.set_xticks(ticks, map(str, ticks))
        axes.minorticks_off()
        axes.set_xlabel("support samples N")
        axes.set_ylabel("peak of one step (GB)")
        axes.set_title(titles[device], fontsize="medium")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
