"""The promise on memory, measured: models x masks x micro-batches x schedules x storage formats, one process per row.

python benchmarks/memory_matrix.py                         288 rows: six small models
python benchmarks/memory_matrix.py --models conv4-84       rows of one model; full sizes have a name with their pixels
python benchmarks/memory_matrix.py --out FILE --json       rows are kept in FILE; what is there is not repeated

Of every row: measured peak <= planned + 2 MiB; measured arena <= planned arena; where the arena is above 4 MiB, planned
<= 1.1 x measured, of both. Violations are printed, and the exit code is 1 where there are any.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

TOLERANCE_BYTES, LARGE_BYTES, SHARE = 2 << 20, 4 << 20, 1.1
MASKS = {"all": 0.0, "last half": 0.5, "last quarter": 0.75, "head": 1.0}
"""Share of the layers that is frozen, from the front; the last layer always learns."""
MICRO_BATCHES = (1, 3, 8)
SAMPLES = 8
SCHEDULES = ("accumulate", "cached suffix")
BITS = (32, 8)
CACHE_BITS = {
    ("cached suffix", 8): 16,
    ("cached suffix", 32): 32,
    ("accumulate", 8): 32,
    ("accumulate", 32): 32,
}
"""A row's maps are all floats, or all packed: those kept for the backward pass in 8 bits, caches in 16."""


@dataclass(frozen=True)
class Model:
    """A backbone: sample shape, options, gradient steps; None is the paper's shape."""

    backbone: str
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = 2


SMALL = {
    "conv4": Model("conv4", (1, 28, 28)),
    "resnet12": Model("resnet12", (3, 32, 32), {"channels": (16, 32, 64, 128)}),
    "mobilenet-v2": Model("mobilenet-v2", (3, 64, 64), {"width": 0.5}),
    "ds-cnn": Model("ds-cnn", (1, 49, 10)),
    "motion-cnn": Model("motion-cnn", (6, 128)),
    "vit": Model("vit", (3, 32, 32), {"dim": 64}),
}
FULL = {
    "conv4-84": Model("conv4", (3, 84, 84), steps=1),
    "resnet12-84": Model("resnet12", (3, 84, 84), steps=1),
    "mobilenet-v2-224": Model("mobilenet-v2", (3, 224, 224), steps=1),
}
MODELS = SMALL | FULL


@dataclass(frozen=True)
class Row:
    """What is run."""

    model: str
    mask: str
    micro_batch: int
    schedule: str
    saved_bits: int
    engine: str

    @property
    def key(self) -> str:
        """All of it as text."""
        return json.dumps(asdict(self), sort_keys=True)


def rows_of(models: Sequence[str], engine: str) -> list[Row]:
    """Return the matrix."""
    return [Row(*values, engine) for values in product(models, MASKS, MICRO_BATCHES, SCHEDULES, BITS)]


def main() -> None:
    """Measure what is not measured yet, print, judge."""
    args = _arguments()
    if args.row is not None:
        print(json.dumps(measure(Row(**json.loads(args.row)), args.bundle)))
        return
    kept = _kept(args.out)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.bundles or Path(scratch)
        for row in rows_of(args.models or list(SMALL), args.engine):
            if row.key not in kept:
                kept[row.key] = result = {**asdict(row), **run(row, bundle_of(row.model, folder))}
                _report(result, args.json)
                if args.out is not None:
                    with args.out.open("a") as lines:
                        lines.write(json.dumps(result) + "\n")
    bad = [text for result in kept.values() for text in violations(result)]
    if args.json:
        print(json.dumps({"rows": list(kept.values()), "violations": bad}))
    for text in bad:
        print(f"violation: {text}", file=sys.stderr)
    print(f"{len(kept)} rows, {len(bad)} violations", file=sys.stderr)
    sys.exit(bool(bad))


def run(row: Row, bundle: Path) -> dict[str, Any]:
    """Measure one row in a process of its own."""
    command = [sys.executable, __file__, "--row", json.dumps(asdict(row)), "--bundle", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{row}: {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(row: Row, path: Path) -> dict[str, Any]:
    """Plan, rehearse, adapt under the peak meter, as `edge-adapt run` does, but with everything fixed."""
    import numpy as np
    from edge_adapt.edge import Bundle
    from edge_adapt.edge.engines import engine_named
    from edge_adapt.edge.inputs import support_from_arrays
    from edge_adapt.edge.plan import search_plan
    from edge_adapt.edge.plan.space import Fixed
    from edge_adapt.edge.planning import target_of
    from edge_adapt.edge.run import adapt, rehearse

    files = Bundle.open(path).files
    layers = len(files.program.layers)
    alpha = np.ones((MODELS[row.model].steps, layers), np.float32)
    alpha[:, : min(int(MASKS[row.mask] * layers), layers - 1)] = 0
    engine, spec = engine_named(row.engine, path), files.manifest.input
    plan = search_plan(
        files.program,
        alpha,
        SAMPLES,
        len(alpha),
        sample_bytes=spec.sample_bytes,
        fixed=Fixed(
            row.micro_batch, row.schedule, None, row.saved_bits, CACHE_BITS[row.schedule, row.saved_bits]
        ),
        target=target_of(engine),
    )
    rng = np.random.default_rng(0)
    samples = (rng.random((SAMPLES, *spec.stored_shape)) * 200).astype(spec.stored_dtype)
    labels = {"labels": np.arange(SAMPLES) % 5}
    answers = files.loss.answers(files.program)
    rehearse(files, engine, plan)
    outcome = adapt(
        files,
        engine,
        lambda: (plan, support_from_arrays("noise", samples.copy(), labels, spec, answers, SAMPLES)),
    )
    return {
        "planned_peak_bytes": plan.planned_peak_bytes,
        "measured_peak_bytes": outcome.meter.peak_bytes,
        "dynamic_bytes": plan.dynamic_bytes,
        "measured_dynamic_bytes": outcome.adaptation.measured_dynamic_bytes,
        "tiling": plan.choice.tiling,
        "recompute": plan.choice.recompute,
    }


def violations(result: dict[str, Any]) -> Iterator[str]:
    """Yield one line for every broken promise of a row."""
    name = ", ".join(
        str(result[key]) for key in ("model", "mask", "micro_batch", "schedule", "saved_bits", "engine")
    )
    planned, measured = result["planned_peak_bytes"], result["measured_peak_bytes"]
    arena, written = result["dynamic_bytes"], result["measured_dynamic_bytes"]
    if measured > planned + TOLERANCE_BYTES:
        yield f"{name}: measured {measured} is more than 2 MiB above planned {planned}"
    if written > arena:
        yield f"{name}: arena measured {written}, planned {arena}"
    for what, plan, found in (
        ("peak", planned, measured),
        ("arena", arena, written),
    ):
        if arena > LARGE_BYTES and plan > SHARE * found:
            yield f"{name}: {what} planned {plan} is more than {SHARE} x measured {found}"


def bundle_of(name: str, folder: Path) -> Path:
    """Export a model, unless it is there already."""
    path = folder / name
    if not path.exists():
        import torch
        from edge_adapt.cloud.models import build_backbone
        from edge_adapt.export import export_bundle

        model = MODELS[name]
        module = build_backbone(model.backbone, model.shape, 5, 0, model.options).eval()
        export_bundle(module, path, example_input=torch.zeros(1, *model.shape), step_size=0.001)
    return path


def _kept(out: Path | None) -> dict[str, dict[str, Any]]:
    """Return the rows that an earlier call left."""
    if out is None or not out.exists():
        return {}
    found = [json.loads(line) for line in out.read_text().splitlines()]
    return {Row(**{key: one[key] for key in Row.__dataclass_fields__}).key: one for one in found}


def _report(result: dict[str, Any], as_json: bool) -> None:
    text = "  ".join(str(value) for value in result.values())
    print(text, file=sys.stderr if as_json else sys.stdout, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measured against planned memory over a matrix of plans.")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), metavar="NAME")
    parser.add_argument("--engine", default="native")
    parser.add_argument("--out", type=Path, help="JSON lines; rows in it are not measured again")
    parser.add_argument("--bundles", type=Path, help="keep the exported bundles here")
    parser.add_argument("--json", action="store_true", help="all rows and violations as one JSON object")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--bundle", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
