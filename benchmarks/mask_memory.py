"""The arena that the meta-trained step sizes of benchmarks/masks need: planned, then measured by adapting.

    python benchmarks/mask_memory.py [--json] [--out benchmarks/results/mask_memory.json]

Every network gets random weights, the file's step sizes, and a budget on the arena; it then adapts to random images. No
layer is frozen beyond what the step sizes freeze. Measured: the highest byte of the arena that was written.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from edge_adapt.cloud.models import build_backbone
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import default_engine
from edge_adapt.edge.errors import BudgetError
from edge_adapt.export import InputSpec, export_bundle
from machine import machine

MASKS = Path(__file__).resolve().parent / "masks"
SEED = 0
BUDGETS = {"conv4": (750_000, 520_000), "resnet12": (12_000_000, 8_600_000)}
"""Bytes: the goal, and the goal beyond it."""


def main() -> None:
    """Print a row for every file and budget."""
    parser = argparse.ArgumentParser(description="Arena of the meta-trained step sizes.")
    parser.add_argument("--engine", default=default_engine())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="also keep the rows here")
    args = parser.parse_args()
    found = [row for path in sorted(MASKS.glob("*.json")) for row in rows(path, args.engine)]
    text = json.dumps({"machine": machine(), "rows": found}, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    if args.json:
        print(text)
        return
    for row in found:
        print(", ".join(f"{name} {value}" for name, value in row.items()))


def rows(path: Path, engine: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each budget of a file; null figures where no plan fits without freezing more."""
    mask = json.loads(path.read_text())
    name = mask["model"]["backbone"]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle.open(exported(mask, Path(folder) / name))
        for budget in BUDGETS[name]:
            yield {"mask": path.stem, "engine": engine, "dynamic_budget": budget} | measured(
                bundle, mask["model"]["samples"], budget, engine
            )


def exported(mask: dict[str, Any], path: Path) -> Path:
    """Write a bundle of the network with random weights and the step sizes of a mask."""
    model, alpha = mask["model"], np.array(mask["alpha"], np.float32)
    shape = (model["channels"], model["height"], model["width"])
    pixels = InputSpec(*shape, (0.5,) * shape[0], (0.25,) * shape[0])
    module = build_backbone(model["backbone"], shape, model["classes"], SEED)
    options: dict[str, Any] = {"steps": len(alpha), "samples": model["samples"], "input": pixels}
    return export_bundle(module, path, example_input=torch.zeros(1, *shape), step_size=alpha, **options)


def measured(bundle: Bundle, samples: int, budget: int, engine: str) -> dict[str, Any]:
    """Plan within the budget, adapt, and return planned and measured bytes."""
    missing = {"dynamic_bytes": None, "measured_dynamic_bytes": None, "saved_bits": None, "tiling": None}
    try:
        plan = bundle.plan(dynamic_budget=budget, samples=samples, engine=engine)
    except BudgetError:
        return missing
    if any(plan.freezing.layers) or plan.cap_cut:
        return missing
    spec = bundle.files.manifest.input
    rng = np.random.default_rng(SEED)
    images = rng.integers(0, 256, (samples, *spec.stored_shape), dtype=np.uint8)
    model = bundle.adapt(images, np.arange(samples) % bundle.files.manifest.classes, plan, engine)
    return {
        "dynamic_bytes": plan.dynamic_bytes,
        "measured_dynamic_bytes": model.report["measured_dynamic_bytes"],
        "saved_bits": plan.choice.saved_bits,
        "tiling": plan.choice.tiling,
    }


if __name__ == "__main__":
    main()
