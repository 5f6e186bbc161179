"""One planned and measured adaptation in a process of its own; prints one JSON object.

Arguments: pixels, micro-batch, storage, schedule, frozen layers (comma-separated), weights file.
The baseline is taken as `edge-adapt run` takes it: after the imports, with the program built, the plan made
and one small product done.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from edge_adapt.edge.bundle import Overlay, TensorFile
from edge_adapt.edge.engines import Hooks, ReferenceEngine
from edge_adapt.edge.measure import PeakMeter
from edge_adapt.edge.plan import search_plan
from programs import Net, conv_program, random_support

SAMPLES, STEPS = 25, 2


def main(
    pixels: int, micro_batch: int, storage: str, schedule: str, frozen: list[str], weights_file: Path
) -> None:
    net = Net(pixels, 1, 32, 4, 5, 8, rho=0.3)
    program, support = conv_program(net), random_support(net, SAMPLES)
    weights = TensorFile.open(weights_file)
    alpha = np.array([[0.0 if layer.name in frozen else 0.01 for layer in program.layers]] * STEPS)
    square = np.ones((64, 64), np.float32)
    square @ square
    plan = search_plan(
        program, alpha, SAMPLES, STEPS, micro_batch=micro_batch, storage=storage, schedule=schedule
    )
    with PeakMeter() as meter:
        result = ReferenceEngine().adapt(program, plan, weights, support, hooks=Hooks(measure=True))
        ReferenceEngine().predict(program, Overlay(weights, result.updated), support)
    figures = {
        "planned_weights_bytes": plan.terms["weights"],
        "planned_peak_bytes": plan.planned_peak_bytes,
        "measured_peak_bytes": meter.peak_bytes,
        "planned_dynamic_bytes": plan.dynamic_bytes,
        "measured_dynamic_bytes": result.measured_dynamic_bytes,
        "losses": result.losses,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5], sys.argv[5].split(","), Path(sys.argv[6]))
