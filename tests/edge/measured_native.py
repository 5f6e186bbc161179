"""One planned and measured adaptation with the native engine in a process of its own; prints one JSON object.

Arguments: threads, the fields of the choice as JSON, frozen layers (comma-separated), weights file. The baseline is
taken after the imports, with the engine (its helpers started) and the program made.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge_adapt.edge.bundle import TensorFile
from edge_adapt.edge.engines import Hooks, NativeEngine
from edge_adapt.edge.lower import Choice
from edge_adapt.edge.measure import PeakMeter

from .native_plans import plan_of, weights_with_frozen
from .programs import Net, conv_program, random_support

NET = Net(84, 3, 32, 4, 5, 8, rho=0.3)
SAMPLES, STEPS = 25, 2


def main(threads: int, choice: Choice, frozen: list[str], weights_file: Path) -> None:
    """Measure and print."""
    program, support = conv_program(NET), random_support(NET, SAMPLES)
    alpha, engine = weights_with_frozen(program, *frozen), NativeEngine(threads)
    weights = TensorFile.open(weights_file)
    with PeakMeter() as meter:
        plan = plan_of(program, alpha, choice, engine.target, SAMPLES, STEPS)
        result = engine.adapt(program, plan, weights, support, hooks=Hooks(measure=True))
    figures = {
        "planned_peak_bytes": plan.planned_peak_bytes,
        "measured_peak_bytes": meter.peak_bytes,
        "planned_dynamic_bytes": plan.dynamic_bytes,
        "measured_dynamic_bytes": result.measured_dynamic_bytes,
        "losses": result.losses,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]), Choice(**json.loads(sys.argv[2])), sys.argv[3].split(","), Path(sys.argv[4]))
