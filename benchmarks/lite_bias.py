"""How far LITE's gradient of one task is from the exact one: bias and RMSE over random draws of H.

    python benchmarks/lite_bias.py                 characters; minutes of one core
    python benchmarks/lite_bias.py --data miniimagenet --runs runs/lite --folder DIRECTORY     after lite.py

Problems: lite_problems.py. LITE, without and with its control variate (lite.control_variate), is compared with what one
does without it: adapt to h of the support samples, and differentiate through all of them. All draw class by class, or
from all samples; a sub-sampled set is then drawn again until every class is in it.

Values are relative to the norm of the exact gradient. RMSE: root of the mean squared norm of the error. Bias: norm of
the mean error; what is measured without any bias is RMSE / sqrt(draws) on average, `limit` is twice that.
A results file is completed, so an interrupted study goes on; other draws need another file.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from edge_adapt.cloud.amortized import LEARNERS
from lite_draws import ESTIMATORS, OneLevel, SubSampled, estimators
from lite_problems import SOURCES, N
from lite_rmse_picture import draw_rmse
from torch import Tensor
from trainings import RESULTS, ROOT, data_directory, keep

CHOICES = (5, 10, 25)
KINDS = ("uniform", "stratified")
CHEAP = 5000
"""Draws where one is a sum of vectors."""
Row = dict[str, Any]


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


@dataclass(frozen=True)
class Cell:
    """What two rows, an RMSE and a bias, are about."""

    data: str
    learner: str
    task: int
    estimator: str
    kind: str
    h: int

    def rows(self, errors: Errors) -> Iterator[Row]:
        """Both rows."""
        common = {
            "study": "estimator",
            "learner": self.learner,
            "n_support": N,
            "h": self.h,
            "image_size": SOURCES[self.data].size,
        }
        others = {
            "unit": "of the exact gradient's norm",
            "data": self.data,
            "task": self.task,
            "estimator": f"{self.estimator}, {self.kind}",
            "draws": errors.draws,
        }
        yield {**common, "value": errors.rmse, "ci95": errors.rmse_ci95, **others, "measure": "rmse"}
        bias = {"measure": "bias", "limit": errors.limit}
        yield {**common, "value": errors.bias, "ci95": None, **others, **bias}


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row is about; rows are sorted by it."""
    return tuple(row[name] for name in ("data", "learner", "measure", "estimator", "task", "h"))


def main() -> None:
    """Measure what is missing in the results file, then draw the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=SOURCES, default="glyphs", help="whose tasks")
    parser.add_argument("--learner", action="append", choices=LEARNERS, help="default: all")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "lite", help="where lite.py keeps them")
    parser.add_argument("--folder", type=Path, default=data_directory(), help="of the data sets")
    parser.add_argument("--draws", type=int, help="of each estimator; default: what its data set can afford")
    parser.add_argument("--out", type=Path, default=RESULTS / "lite_bias.json")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "pictures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    learners = args.learner or LEARNERS
    for task, learner in product(range(SOURCES[args.data].tasks), learners):
        measure(args.data, learner, task, args)
    draw_rmse(json.loads(args.out.read_text()), args.pictures / "lite_rmse.png")


def measure(data: str, learner: str, task: int, args: argparse.Namespace) -> None:
    """Add the rows of a learner and a task that the file lacks."""
    known = {key_of(row) for row in json.loads(args.out.read_text())} if args.out.exists() else set()
    every = product(ESTIMATORS, KINDS, CHOICES)
    wanted = {
        cell: [*cell.rows(Errors(0, 0, 0, 1))] for cell in (Cell(data, learner, task, *c) for c in every)
    }
    missing = [cell for cell, rows in wanted.items() if not known >= {key_of(row) for row in rows}]
    if not missing:
        return
    source = SOURCES[data]
    found = estimators(source.make(learner, task, args.runs, args.folder))
    for cell in missing:
        gradients = found[cell.estimator]
        number = source.subsampled if isinstance(gradients, SubSampled) else source.lite
        number = CHEAP if isinstance(gradients, OneLevel) else args.draws or number
        draws = islice(gradients.draws(cell.h, cell.kind == "stratified"), number)
        for row in cell.rows(errors_of(draws, gradients.exact)):
            keep(row, args.out, key_of)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
