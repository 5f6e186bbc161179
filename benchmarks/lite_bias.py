"""How far LITE's gradient of one task is from the exact one: bias and RMSE over random draws of H.

    python benchmarks/lite_bias.py                 about ten minutes of one core
    python benchmarks/lite_bias.py --draws 500 --subsampled 200 --out bias.json --picture bias.png

The task: characters of unseen scripts, 5-way 10-shot (N = 50), 25 queries, 8 x 8 pixels. The network: ResNet12 with two
blocks of 8 and 16 channels, trained as ProtoNets first, then as each learner. LITE is compared with what one does
without it: adapt to h of the support samples, and differentiate through all of them. Both draw class by class, or from
all samples; a sub-sampled set is then drawn again until every class is in it.

Values are relative to the norm of the exact gradient. RMSE: root of the mean squared norm of the error. Bias: norm of
the mean error; what is measured without any bias is RMSE / sqrt(draws) on average, `limit` is twice that.
A results file is completed, so an interrupted study goes on; other draws need another file.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, cast

import torch
from edge_adapt.cloud.amortized import LEARNERS
from edge_adapt.cloud.amortized.amortized import Amortized
from edge_adapt.cloud.amortized.episode import FEATURES
from edge_adapt.cloud.lite import LiteConfig, Subset, draw, generator_of
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.outer import Meta, MethodConfig
from edge_adapt.cloud.run import adam
from edge_adapt.cloud.tasks import EpisodeSampler, load_dataset
from edge_adapt.cloud.tasks.task import Samples, Stored, Task
from lite_rmse_picture import draw_rmse
from torch import Tensor, nn
from torch.nn import functional as F
from trainings import RESULTS, ROOT, keep

SIZE, WAYS, SHOTS, QUERIES = 8, 5, 10, 5
N = WAYS * SHOTS
SHAPE = (1, SIZE, SIZE)
CHOICES = (5, 10, 25)
SEED, H, SUBSAMPLE = 0, 2, 3
"""What a random number is for."""
STEPS, RATE = (400, 100), 1e-3
"""Training steps of the extractor, and of the learner; Adam's rate."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """A trained learner and a task.

    Attributes:
        learner: its name.
        module: the backbone with the extractor's weights.
        meta: the meta-parameters.
        task: N support samples.
    """

    learner: str
    module: nn.Module
    meta: Meta
    task: Task

    def with_lite(self, **settings: Any) -> Amortized:
        """The learner with these settings of [lite]."""
        made = LEARNERS[self.learner](self.module, SHAPE, MethodConfig(), LiteConfig(**settings))
        return cast(Amortized, made)

    def exact(self) -> Tensor:
        """The gradient through the whole support set, (P,)."""
        return flat(self.with_lite().task_gradient(self.meta, self.task).grads)


def problem(learner: str, steps: tuple[int, int] = STEPS) -> Problem:
    """Train the extractor as ProtoNets, then the learner; take a task of unseen characters."""
    training = EpisodeSampler(
        load_dataset("glyphs", "train"), ways=WAYS, shots=SHOTS, queries=QUERIES, seed=SEED
    )
    unseen = EpisodeSampler(
        load_dataset("glyphs", "test"), ways=WAYS, shots=SHOTS, queries=QUERIES, seed=SEED
    )
    module = build_backbone("resnet12", SHAPE, WAYS, SEED, {"channels": (8, 16)})
    protonets = Problem("protonets", module, Meta({}, {}), small(unseen.task(0)))
    meta = trained(protonets.with_lite(), training, steps[0])
    weights = {name.removeprefix("extractor."): value for name, value in meta.learned.items()}
    module.load_state_dict({**module.state_dict(), **weights})
    if learner == "protonets":
        return replace(protonets, meta=meta)
    found = replace(protonets, learner=learner)
    return replace(found, meta=trained(found.with_lite(), training, steps[1]))


def trained(learner: Amortized, tasks: EpisodeSampler, steps: int) -> Meta:
    """Adam with exact gradients, one task per step."""
    meta = learner.init(SEED)
    state, rates = adam.init(meta.learned), dict.fromkeys(meta.learned, RATE)
    for index in range(steps):
        result = learner.meta_gradient(meta, [small(tasks.task(index))], index / steps)
        learned, state = adam.update(meta.learned, result.grads, state, rates)
        meta = replace(meta, learned=learned)
    return meta


def small(task: Task) -> Task:
    """The task with images of SIZE x SIZE pixels in memory."""
    return replace(task, support=shrunk(task.support), query=shrunk(task.query))


def shrunk(samples: Samples) -> Stored:
    """All samples, averaged over squares of pixels."""
    return Stored(F.adaptive_avg_pool2d(samples.take(torch.arange(len(samples))), SIZE))


def flat(grads: Mapping[str, Tensor]) -> Tensor:
    """All gradients in one vector (P,)."""
    return torch.cat([grad.flatten() for grad in grads.values()])


def lite_draws(of: Problem, h: int, stratified: bool) -> Iterator[Tensor]:
    """Gradients (P,) through H, a new one each; with one level put together from those of single samples."""
    two_levels = bool(of.with_lite().modules.films)
    return each_draw(of, h, stratified) if two_levels else put_together(of, h, stratified)


def each_draw(of: Problem, h: int, stratified: bool) -> Iterator[Tensor]:
    """A backward pass for each draw."""
    learner = of.with_lite(h=h, stratified=stratified)
    exact = learner.exact(of.meta, of.task)
    for index in count():
        task = replace(of.task, key=(H, index))
        yield flat(learner.task_gradient(of.meta, task, exact).grads)


def put_together(of: Problem, h: int, stratified: bool) -> Iterator[Tensor]:
    """The same numbers for a learner of one level, whose gradient is affine in the scales of the samples in H."""
    learner, labels = of.with_lite(), of.task.support_y if stratified else None
    exact = learner.exact(of.meta, of.task)

    def alone(row: int, scale: float) -> Tensor:
        subset = Subset(torch.tensor([row]), torch.tensor([scale]))
        return flat(learner.task_gradient(of.meta, of.task, exact, lambda level: subset).grads)

    none = alone(0, 0.0)
    single = torch.stack([alone(row, 1.0) - none for row in range(N)])
    for index in count():
        subset = draw(N, h, generator_of((H, index), FEATURES, 0, 0), labels)
        yield none + subset.scale.to(single) @ single[subset.rows]


def subsampled_draws(of: Problem, h: int, stratified: bool) -> Iterator[Tensor]:
    """Exact gradients (P,) of the task with h support samples only, others each."""
    learner, labels = of.with_lite(), of.task.support_y
    for index in count():
        rows = all_classes(labels, h, stratified, generator_of((SUBSAMPLE, index)))
        task = replace(of.task, support=Stored(of.task.support.take(rows)), support_y=labels[rows])
        yield flat(learner.task_gradient(of.meta, task).grads)


def all_classes(labels: Tensor, h: int, stratified: bool, generator: torch.Generator) -> Tensor:
    """Rows (h,) of support samples, drawn until every class is among them."""
    while True:
        rows = draw(len(labels), h, generator, labels if stratified else None).rows
        if len(labels[rows].unique()) == len(labels.unique()):
            return rows


@dataclass(frozen=True)
class Errors:
    """Of a number of draws, relative to the norm of the exact gradient.

    Attributes:
        rmse: root of the mean squared norm.
        rmse_ci95: half of its 95 % interval.
        bias: norm of the mean.
        draws: how many.
    """

    rmse: float
    rmse_ci95: float
    bias: float
    draws: int

    @property
    def limit(self) -> float:
        """What a bias that is none stays below."""
        return 2 * self.rmse / math.sqrt(self.draws)


def errors_of(draws: Iterable[Tensor], exact: Tensor) -> Errors:
    """Compare draws of a gradient with the exact one; no draw is kept."""
    exact, total = exact.double(), torch.zeros(exact.shape, dtype=torch.float64)
    squares = []
    for drawn in draws:
        error = drawn.double() - exact
        total += error
        squares.append(float(error.square().sum()))
    number, norm, squared = len(squares), float(exact.norm()), torch.tensor(squares, dtype=torch.float64)
    rmse = math.sqrt(float(squared.mean())) / norm
    spread = 1.96 * float(squared.std()) / math.sqrt(number) / norm**2  # of the mean square
    return Errors(rmse, spread / (2 * rmse), float(total.norm()) / number / norm, number)


Draws = Callable[[Problem, int, bool], Iterator[Tensor]]
ESTIMATORS: Mapping[str, tuple[Draws, bool]] = {
    "LITE, uniform": (lite_draws, False),
    "LITE, stratified": (lite_draws, True),
    "sub-sampled, uniform": (subsampled_draws, False),
    "sub-sampled, stratified": (subsampled_draws, True),
}


def rows_of(learner: str, estimator: str, h: int, errors: Errors) -> Iterator[Row]:
    """A row for the RMSE and one for the bias."""
    common = {"study": "estimator", "learner": learner, "n_support": N, "h": h, "image_size": SIZE}
    unit = "of the exact gradient's norm"
    others = {"unit": unit, "estimator": estimator, "draws": errors.draws}
    yield {**common, "value": errors.rmse, "ci95": errors.rmse_ci95, **others, "measure": "rmse"}
    bias = {"measure": "bias", "limit": errors.limit}
    yield {**common, "value": errors.bias, "ci95": None, **others, **bias}


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row is about; rows are sorted by it."""
    return (row["learner"], row["measure"], row["estimator"], row["h"])


def main() -> None:
    """Measure what is missing in the results file, then draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=5000, help="of LITE")
    parser.add_argument(
        "--subsampled", type=int, default=500, help="draws without LITE, or with noisy images"
    )
    parser.add_argument("--learner", action="append", choices=LEARNERS, help="default: all")
    parser.add_argument("--out", type=Path, default=RESULTS / "lite_bias.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "pictures" / "lite_rmse.png")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for learner in args.learner or LEARNERS:
        measure(learner, args.out, args.draws, args.subsampled)
    draw_rmse(json.loads(args.out.read_text()), args.picture)


def measure(learner: str, out: Path, lite: int, subsampled: int) -> None:
    """Add the rows of a learner that the file lacks."""
    known = {key_of(row) for row in json.loads(out.read_text())} if out.exists() else set()
    wanted = [(h, estimator) for estimator in ESTIMATORS for h in CHOICES]
    missing = [(h, estimator) for h, estimator in wanted if (learner, "bias", estimator, h) not in known]
    of = problem(learner) if missing else None
    for h, estimator in missing:
        assert of is not None
        draws, stratified = ESTIMATORS[estimator]
        number = lite if draws is lite_draws else subsampled
        for row in rows_of(
            learner, estimator, h, errors_of(islice(draws(of, h, stratified), number), of.exact())
        ):
            keep(row, out, key_of)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
