"""What a memory budget buys: 4Conv at 84x84, every layer, 25 samples, 5 steps; for docs/memory.md.

python benchmarks/frontier.py           prints the table, rewrites it in the docs, draws docs/pictures/frontier.png
python benchmarks/frontier.py --print   prints the table only
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.models import build_backbone
from edge_adapt.edge.engines import default_engine, engine_named
from edge_adapt.edge.inputs import InputSpec
from edge_adapt.edge.plan import Plan
from edge_adapt.edge.plan.candidate import Budgets
from edge_adapt.edge.plan.frontier import frontier
from edge_adapt.edge.plan.frontier_picture import draw_frontier
from edge_adapt.edge.plan.search import Search, planning_request
from edge_adapt.edge.plan.space import Fixed, space_of
from edge_adapt.edge.planning import target_of
from edge_adapt.export.adaptation import adaptation
from edge_adapt.export.source import Source
from pages import ROOT, rewrite

SHAPE, WAYS, SAMPLES, STEPS = (3, 84, 84), 5, 25, 5


def main() -> None:
    """Print the table; put it and the picture into the docs."""
    parser = argparse.ArgumentParser(description="The frontier of memory and time of 4Conv at 84 pixels.")
    parser.add_argument("--print", action="store_true", dest="only", help="write nothing")
    only: bool = parser.parse_args().only
    plans = conv4_frontier()
    table = render(plans)
    print(table, end="")
    if not only:
        rewrite("docs/memory.md", {"frontier": table})
        draw_frontier(plans, ROOT / "docs" / "pictures" / "frontier.png")


def conv4_frontier() -> list[Plan]:
    """Return the plans of 4Conv, the roomiest first."""
    network = Network(build_backbone("conv4", SHAPE, WAYS, 0), SHAPE)
    names = tuple(layer.name for layer in network.layers)
    alpha = np.full((STEPS, len(names)), 0.01, np.float32)
    spec = InputSpec(*SHAPE, (0.5,) * SHAPE[0], (0.25,) * SHAPE[0])
    program = adaptation(Source("conv4-84", network.module, spec, names, alpha))
    target = target_of(engine_named(default_engine(), Path()))
    request = planning_request(program, alpha, SAMPLES, STEPS, target=target)
    return frontier(Search(request, space_of(SAMPLES, Fixed())), Budgets())


def render(plans: Sequence[Plan]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| planned peak, MB | arena, MB | seconds | GMACs | frozen | kept maps | at a time | recompute | tiling |",
        "|---:|---:|---:|---:|---:|---|---:|---|---|",
    ]
    for plan in plans:
        frozen = len({name for step in plan.freezing.layers for name in step})
        choice = plan.choice
        lines.append(
            f"| {plan.planned_peak_bytes / 1e6:.2f} | {plan.dynamic_bytes / 1e6:.2f} | {plan.predicted_seconds:.2f}"
            f" | {plan.macs / 1e9:.1f} | {frozen} | {choice.saved_bits} bits | {choice.micro_batch}"
            f" | {'yes' if choice.recompute else 'no'} | {choice.tiling} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
