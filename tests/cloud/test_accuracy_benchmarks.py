"""The committed accuracies of benchmarks/methods.py and pareto.py: complete, above their floors, judged right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edge_adapt.cloud.config import RunConfig
from edge_adapt.cloud.outer import METHODS
from edge_adapt.cloud.recipes import read_recipe

from ..conftest import BENCHMARKS, benchmark_module

benchmark_module("machine")  # which the others import
trainings = benchmark_module("trainings")
picture = benchmark_module("pareto_picture")
methods = benchmark_module("methods")
pareto = benchmark_module("pareto")


def rows_of(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((BENCHMARKS / "results" / name).read_text())
    return rows


def run(penalty: str, kilobytes: int, accuracy: float, ci95: float = 0.01) -> dict[str, Any]:
    planned = {"planned_dynamic_bytes": 1000 * kilobytes}
    return {"penalty": penalty, "value": 1.0, "accuracy": accuracy, "ci95": ci95, **planned}


def test_every_method_has_a_row_made_by_its_recipe_as_it_is_now() -> None:
    rows = rows_of("methods.json")
    assert sorted(row["method"] for row in rows) == sorted(METHODS)
    for row in rows:
        recipe = RunConfig.from_table(read_recipe(row["recipe"]))
        assert recipe.method.name == row["method"]
        assert recipe.train.outer_steps == row["outer_steps"]
        assert recipe.train.tasks_per_step == row["tasks_per_step"]


def test_every_method_beats_its_floor_with_its_whole_interval() -> None:
    for row in rows_of("methods.json"):
        assert row["accuracy"] - row["ci95"] >= row["floor"] > row["nearest_class"], row["method"]


def test_the_lower_residual_is_reported_by_the_implicit_methods_alone() -> None:
    found = {row["method"] for row in rows_of("methods.json") if row["lower_residual"] is not None}
    assert found == {"imaml", "mrml"}


def test_every_case_of_the_pareto_picture_has_a_row() -> None:
    found = {(row["penalty"], row["value"]) for row in rows_of("pareto.json")}
    assert found == {(case.penalty, case.value) for case in pareto.CASES}


def test_budgets_are_shares_of_the_dense_plan() -> None:
    rows = [run("none", 200, 0.9), run("peak", 100, 0.9)]
    assert picture.budgets(rows) == [int(share * 200_000) for share in picture.SHARES]


def test_the_best_run_within_a_budget_is_the_most_accurate_one_that_fits() -> None:
    rows = [
        run("peak", 100, 0.8),
        run("peak", 150, 0.85),
        run("peak", 151, 0.99),
        run("activations", 10, 1.0),
    ]
    assert picture.best_within(rows, "peak", 150_000) == rows[1]
    assert picture.best_within(rows, "peak", 99_000) is None


@pytest.mark.parametrize(
    ("other", "paper", "expected"),
    [
        (run("peak", 1, 0.895), run("activations", 1, 0.9), True),
        (run("peak", 1, 0.885), run("activations", 1, 0.9), False),
        (run("peak", 1, 0.885, ci95=0.02), run("activations", 1, 0.9), True),
        (None, run("activations", 1, 0.9), False),
        (None, None, False),
        (run("peak", 1, 0.2), None, False),
    ],
    ids=[
        "within the interval",
        "below it",
        "within its own",
        "no run",
        "neither has one",
        "the paper has none",
    ],
)
def test_not_below_means_by_no_more_than_the_interval(other: Any, paper: Any, expected: bool) -> None:
    assert picture.not_below(other, paper) is expected


def test_the_picture_is_drawn_for_runs_of_every_penalty(tmp_path: Path) -> None:
    rows = [run(penalty, 50, 0.8) for penalty in (*picture.PENALTIES, "none")]
    picture.draw(rows, tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["pareto.png"]
