"""LITE and the learners that adapt by forward passes: what the subset H costs, and what they reach on new classes.

    python benchmarks/lite.py                      all studies that are not there yet: some hours on one core
    python benchmarks/lite.py --study omniglot --work runs/lite

Studies: `estimator` (lite_bias.py) and `memory` (lite_memory.py); `omniglot` and `miniimagenet`, ProtoNets with LITE
against full back-propagation at the same number of steps; `extractor`, every learner on one pre-trained extractor,
tested on mini-ImageNet's test classes and on Caltech-101, with FiLM off and with identity covariance.

One thread each, resumable: an interrupted training goes on from its checkpoint, a finished one is used again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from machine import machine
from trainings import command, keep, parser, trained

STUDIES = ("omniglot", "miniimagenet", "extractor")
TASKS = 600
OTHER_TASKS = 200
"""Test tasks of the study on one extractor, whose forward passes take longer."""
EXTRACTOR = ("--set", "crop=64", "--set", "precision=bfloat16", "--set", "epochs=20")
"""Settings of the extractor's pre-training; everything else is `meta-train pretrain`'s own."""


@dataclass(frozen=True)
class Case:
    """One training and what it is compared with.

    Attributes:
        study: where its rows go.
        learner: with what is unusual about it, as people are told.
        recipe: the recipe.
        settings: changes to the recipe.
        seed: of the run.
        others: data sets it is tested on beside its own.
    """

    study: str
    learner: str
    recipe: str
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    seed: int = 0
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its run directory."""
        return f"{self.study}-{self.learner.replace(' ', '-').replace(',', '')}-{self.seed}"


def cases(extractor: Path) -> Iterator[Case]:
    """All trainings, the cheap ones first."""
    for seed in range(3):
        yield from with_and_without("omniglot", "protonets-conv4-omniglot-20way-5shot", 10, 100, seed)
    yield from with_and_without("miniimagenet", "protonets-conv4-miniimagenet-10shot", 5, 50, 0)
    for learner, changes in EXTRACTOR_CASES.items():
        recipe = f"{learner.partition(',')[0]}-resnet18-miniimagenet-5shot"
        weights = {"train.initial_weights": extractor}
        yield Case("extractor", learner, recipe, {**weights, **changes}, others=("caltech101",))


def with_and_without(study: str, recipe: str, h: int, queries: int, seed: int) -> Iterator[Case]:
    """Full back-propagation, all queries at once, and the recipe with LITE."""
    yield Case(study, "protonets, h = all", recipe, {"lite.h": "none", "lite.query_batch": queries}, seed)
    yield Case(study, f"protonets, h = {h}", recipe, {"lite.h": h}, seed)


EXTRACTOR_CASES: Mapping[str, Mapping[str, object]] = {
    "protonets": {},
    "cnaps": {},
    "cnaps, FiLM off": {"method.film": "false"},
    "simple-cnaps": {},
    "simple-cnaps, FiLM off": {"method.film": "false", "train.outer_steps": 1},
    "simple-cnaps, identity covariance": {"method.covariance": "identity"},
}


def main() -> None:
    """Train and test what is asked for; rewrite the results file after every row."""
    arguments = parser(__doc__, "lite", "lite.json")
    arguments.add_argument("--study", choices=STUDIES, action="append", help="default: all")
    arguments.add_argument("--learner", action="append", help="only these cases of it, as named in the results")
    args = arguments.parse_args()
    for case in cases(args.work / "extractor" / "weights.safetensors"):
        if case.study in (args.study or STUDIES) and case.learner in (args.learner or (case.learner,)):
            for row in benchmark(case, args.work, args.data):
                keep(row, args.out, _key)
                print(json.dumps(row), flush=True)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["study"], row["learner"], row.get("data", ""), row.get("seed", 0), row["n_support"], row["h"] or 0)


def benchmark(case: Case, work: Path, data: Path) -> Iterator[dict[str, Any]]:
    """Train one case; yield a row for every data set it is tested on."""
    if "train.initial_weights" in case.settings:
        pretrained(work / "extractor", data)
    tasks = OTHER_TASKS if case.others else TASKS
    settings = {**case.settings, "seed": case.seed, "train.test_tasks": tasks}
    run = trained(case.recipe, work / case.name, data, settings)
    own = json.loads((run / "result.json").read_text())
    yield row_of(case, run, own["data"], own["test"])
    for name in case.others:
        found = command("meta-train", "eval", run, "--data", f"{name}={data}", "--tasks", tasks, "--json")
        yield row_of(case, run, name, found)


def pretrained(out: Path, data: Path) -> None:
    """Train the extractor, go on with it, or leave a finished one alone."""
    if (out / "result.json").exists():
        return
    resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
    given = ("resnet18", "--data", f"miniimagenet={data}", "--out", out, "--threads", 2)
    command("meta-train", "pretrain", *given, *EXTRACTOR, *resume)


def row_of(case: Case, run: Path, data: str, score: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was trained, for how long, and what came out on one data set."""
    from edge_adapt.cloud.run_directory import read_config

    config, result = read_config(run), json.loads((run / "result.json").read_text())
    return {
        "study": case.study,
        "learner": case.learner,
        "n_support": config.task.ways * config.task.shots,
        "h": config.lite.h,
        "image_size": result["input"]["height"],
        "value": score["accuracy"],
        "ci95": score["ci95"],
        "unit": "accuracy",
        "data": data,
        "ways": config.task.ways,
        "tasks": score["tasks"],
        "seed": config.seed,
        "outer_steps": config.train.outer_steps,
        "tasks_per_step": config.train.tasks_per_step,
        "minutes": round(result["seconds"] / 60, 1),
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
