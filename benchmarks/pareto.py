"""Which penalty on the step sizes buys most accuracy per byte? p-Meta without attention, Omniglot, 5-way 1-shot.

    python benchmarks/pareto.py            every case: about 15 minutes on one free core; then the picture
    python benchmarks/pareto.py --draw     the picture only, from the results file

Every case starts from the same weights and step sizes: those of the MAML++ run of omniglot.py, where every layer
learns at every step. It then trains on for a short budget, the same for all, with its penalty. Step sizes alone are
compared, so there is no attention. Memory is the arena of the most frugal plan of the exported bundle: float32, no
layer frozen beyond the step sizes. One thread, resumable: finished runs under --work are used again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import machine
from pareto_picture import draw
from trainings import ROOT, WAYS, exported, frozen_layers, keep, most_frugal, parser, recipe_of, trained

SHOTS, SEED = 1, 0
SCORE = ("accuracy", "ci95", "tasks", "accuracy_before")
STEPS, TASKS_PER_STEP = 40, 8
SETTINGS = {
    "seed": SEED,
    "method.attention": "false",
    "method.first_order_until": 0.0,
    "method.alpha_rate": 0.08,
    "method.tasks_per_chunk": TASKS_PER_STEP,
    "train.outer_steps": STEPS,
    "train.tasks_per_step": TASKS_PER_STEP,
    "train.learning_rate": 5e-4,
    "train.validate_every": STEPS,
    "train.validation_tasks": 24,
}
"""The penalised phase. Its last state is kept: nothing is chosen by validation."""


@dataclass(frozen=True)
class Case:
    """A penalty and its one knob: lambda, or for `peak` the share of the dense plan that it has to meet."""

    penalty: str
    value: float

    @property
    def settings(self) -> dict[str, object]:
        """What it changes in the recipe."""
        knob: dict[str, object] = {"method.penalty_strength": self.value}
        if self.penalty == "peak":
            knob = {"method.target_fraction": self.value, "method.penalty_strength": 0.03}
            knob |= {"method.prune_at": 0.1}
        if self.penalty != "none":
            knob |= {"method.warmup_fraction": 0.05}
        return {**SETTINGS, "method.penalty": self.penalty, **knob}


LEVELS = ((0.2, 0.48), (1.0, 0.37), (0.03, 0.58), (5.0, 0.69))
"""Strengths of the two costs, and beside each a target of `peak`."""
CASES = (
    Case("none", 0.0),
    *(
        case
        for strength, target in LEVELS
        for case in (
            Case("activations", strength),
            Case("activations+gradients", strength),
            Case("peak", target),
        )
    ),
)


def main() -> None:
    """Train what is missing, plan, keep the rows, draw."""
    arguments = parser(__doc__, "pareto", "pareto.json")
    arguments.add_argument("--draw", action="store_true", help="train nothing")
    arguments.add_argument("--picture", type=Path, default=ROOT / "docs" / "pictures" / "pareto.png")
    args = arguments.parse_args()
    if not args.draw:
        recipe = recipe_of("maml++", SHOTS)
        dense = trained(recipe, args.work / recipe, args.data)
        for case in CASES:
            row = benchmark(case, dense, args.work, args.data)
            keep(row, args.out, lambda each: (each["penalty"], each["value"]))
            print(json.dumps(row), flush=True)
    draw(json.loads(args.out.read_text()), args.picture)


def benchmark(case: Case, dense: Path, work: Path, data: Path) -> dict[str, Any]:
    """Train on from the dense run, export, plan; return the row."""
    settings = case.settings | {"train.initial_weights": dense / "model.safetensors"}
    run = trained(
        recipe_of("p-meta", SHOTS), work / f"{case.penalty}-{case.value:g}".replace("+", "-"), data, settings
    )
    result, bundle = json.loads((run / "result.json").read_text()), exported(run)
    plan = most_frugal(bundle, WAYS * SHOTS)
    return {
        "penalty": case.penalty,
        "value": case.value,
        "seed": SEED,
        **{name: result["test"][name] for name in SCORE},
        "planned_dynamic_bytes": plan.dynamic_bytes,
        "zero_step_sizes": result["zero_step_sizes"],
        "frozen_layers": frozen_layers(plan.layers, bundle),
        "outer_steps": STEPS,
        "tasks_per_step": TASKS_PER_STEP,
        "minutes": round(result["seconds"] / 60, 1),
        "versions": result["versions"],
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
