"""LITE and the learners that adapt by forward passes: what the subset H costs, and what they reach on new classes.

    python benchmarks/lite.py                      all studies that are not there yet: some seven hours of one core
    python benchmarks/lite.py --study omniglot --work runs/lite

Studies: `omniglot` and `miniimagenet`, ProtoNets with LITE against full back-propagation, the same number of steps from
the same pre-trained extractor; `miniimagenet, rate 1e-4`, the same with a higher learning rate, and `longer`;
`omniglot from scratch`, from random weights; `extractor`, every learner on one pre-trained extractor, tested on
mini-ImageNet's test classes and on Caltech-101, with FiLM off and with identity covariance. The results file also takes
up what lite_bias.py (`estimator`) and lite_memory.py (`memory`) measured.

One thread each, resumable: an interrupted training goes on from its checkpoint, a finished one is used again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from machine import machine
from trainings import RESULTS, command, keep, parser, trained

MEASURED_ELSEWHERE = ("lite_bias.json", "lite_memory.json")
SEEDS = 3
"""Trainings of a case; all start from the same extractor."""
TASKS = 200
"""Test tasks of a case, where its settings do not say otherwise."""


@dataclass(frozen=True)
class Extractor:
    """What `meta-train pretrain` makes before a study: backbone, data set, settings that are not its own."""

    backbone: str
    data: str
    settings: Mapping[str, object]


EXTRACTORS: Mapping[str, Extractor] = {
    "omniglot-conv4": Extractor(
        "conv4",
        "omniglot",
        {"architecture.norm": "group", "mirror": "false", "smallest_crop": 0.7, "epochs": 6},
    ),
    "extractor": Extractor("resnet18", "miniimagenet", {"crop": 64, "precision": "bfloat16", "epochs": 20}),
}
"""By the name of its directory."""


@dataclass(frozen=True)
class Case:
    """One training and what it is compared with.

    Attributes:
        study: where its rows go.
        learner: with what is unusual about it, as people are told.
        recipe: the recipe.
        settings: changes to the recipe.
        seed: of the run.
        start: which of `EXTRACTORS` it starts from; none: random weights.
        others: data sets it is tested on beside its own.
    """

    study: str
    learner: str
    recipe: str
    settings: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    seed: int = 0
    start: str | None = None
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its run directory."""
        return f"{self.study}-{self.learner}-{self.seed}".replace(" ", "-").replace(",", "")


@dataclass(frozen=True)
class Comparison:
    """ProtoNets trained in several ways, all else the same.

    Attributes:
        study: its name.
        recipe: the recipe.
        h: of LITE.
        settings: changes to the recipe.
        variants: which of `variants` are trained.
        start: which of `EXTRACTORS` they start from; none: random weights.
        seeds: trainings of each.
    """

    study: str
    recipe: str
    h: int
    settings: Mapping[str, object]
    variants: tuple[str, ...] = ("all", "{h}")
    start: str | None = None
    seeds: int = SEEDS

    def cases(self) -> Iterator[Case]:
        """Each variant with each seed."""
        for seed, variant in product(range(self.seeds), self.variants):
            settings = {**self.settings, "lite.h": self.h, **VARIANTS[variant]}
            learner = f"protonets, h = {variant.format(h=self.h)}"
            yield Case(self.study, learner, self.recipe, settings, seed, self.start)


VARIANTS: Mapping[str, Mapping[str, object]] = {
    "all": {"lite.h": "none"},
    "{h}": {},
    "{h}, no control variate": {"lite.control_variate": "false"},
    "{h}, stratified": {"lite.stratified": "true"},
}
"""Full back-propagation, and ways to go through a part of the support set."""
OMNIGLOT, MINIIMAGENET = "protonets-conv4-omniglot-20way-5shot", "protonets-resnet18-miniimagenet-5shot"
MANY_TASKS = {
    "train.outer_steps": 200,
    "train.tasks_per_step": 4,
    "train.learning_rate": 5e-4,
    "task.training_queries": 3,
}
TEN_SHOTS = {"task.shots": 10, "train.outer_steps": 60}
LOW_RATE = {**TEN_SHOTS, "train.learning_rate": 4e-5}
LONGER = {**TEN_SHOTS, "train.outer_steps": 150}
SOME = ("all", "{h}", "{h}, no control variate")
COMPARISONS = (
    Comparison("omniglot", OMNIGLOT, 10, MANY_TASKS, SOME, "omniglot-conv4"),
    Comparison("omniglot from scratch", OMNIGLOT, 10, {"train.test_tasks": 600}, SOME, seeds=1),
    Comparison("miniimagenet", MINIIMAGENET, 5, LOW_RATE, start="extractor"),
    Comparison("miniimagenet, rate 1e-4", MINIIMAGENET, 5, TEN_SHOTS, tuple(VARIANTS), "extractor"),
    Comparison("miniimagenet, rate 1e-4, longer", MINIIMAGENET, 5, LONGER, start="extractor", seeds=1),
)


def cases() -> Iterator[Case]:
    """All trainings."""
    for comparison in COMPARISONS:
        yield from comparison.cases()
    for seed, (learner, changes) in product(range(SEEDS), EXTRACTOR_CASES.items()):
        recipe = f"{learner.partition(',')[0]}-resnet18-miniimagenet-5shot"
        yield Case("extractor", learner, recipe, changes, seed, "extractor", ("caltech101",))


EXTRACTOR_CASES: Mapping[str, Mapping[str, object]] = {
    "protonets": {},
    "cnaps": {},
    "cnaps, FiLM off": {"method.film": "false"},
    "simple-cnaps": {},
    "simple-cnaps, FiLM off": {"method.film": "false", "train.outer_steps": 1},
    "simple-cnaps, identity covariance": {"method.covariance": "identity"},
}


STUDIES = (*(comparison.study for comparison in COMPARISONS), "extractor")


def main() -> None:
    """Train and test what is asked for; rewrite the results file after every row."""
    arguments = parser(__doc__, "lite", "lite.json")
    arguments.add_argument("--study", choices=STUDIES, action="append", help="default: all")
    arguments.add_argument(
        "--learner", action="append", help="only these cases of it, as named in the results"
    )
    args = arguments.parse_args()
    for case in cases():
        if case.study in (args.study or STUDIES) and case.learner in (args.learner or (case.learner,)):
            for row in benchmark(case, args.work, args.data):
                keep(row, args.out, key_of)
                print(json.dumps(row), flush=True)
    for name in MEASURED_ELSEWHERE:
        for row in json.loads((RESULTS / name).read_text()):
            keep(row, args.out, key_of)


def key_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What two rows of the results file differ in."""
    names = ("study", "learner", "data", "estimator", "measure", "device", "seed", "task")
    return (*(str(row.get(name, "")) for name in names), f"{row['n_support']:6}", f"{row['h'] or 0:6}")


def benchmark(case: Case, work: Path, data: Path) -> Iterator[dict[str, Any]]:
    """Train one case; yield a row for every data set it is tested on."""
    weights = {} if case.start is None else {"train.initial_weights": pretrained(case.start, work, data)}
    settings = {**weights, "seed": case.seed, "train.test_tasks": TASKS, **case.settings}
    run = trained(case.recipe, work / case.name, data, settings)
    own = json.loads((run / "result.json").read_text())
    yield row_of(case, run, own["data"], own["test"])
    for name in case.others:
        found = command("meta-train", "eval", run, "--data", f"{name}={data}", "--tasks", TASKS, "--json")
        yield row_of(case, run, name, found)


def pretrained(name: str, work: Path, data: Path) -> Path:
    """Train an extractor, go on with it, or leave a finished one alone; return its weights."""
    out, extractor = work / name, EXTRACTORS[name]
    if not (out / "result.json").exists():
        resume = ["--resume"] if (out / "checkpoint.pt").exists() else []
        changes = [word for key, value in extractor.settings.items() for word in ("--set", f"{key}={value}")]
        source = ("--data", f"{extractor.data}={data}", "--out", out, "--threads", 1)
        command("meta-train", "pretrain", extractor.backbone, *source, *changes, *resume)
    return out / "weights.safetensors"


def row_of(case: Case, run: Path, data: str, score: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was trained, for how long, and what came out on one data set."""
    from edge_adapt.cloud.run.directory import read_config

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
