"""Write the tables of docs/lite.md from benchmarks/results/lite.json.

python benchmarks/lite_tables.py           rewrites them
python benchmarks/lite_tables.py --check   fails if the page says something else than the results
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from pages import ROOT, Tables, rewrite_or_check

RESULTS = ROOT / "benchmarks" / "results" / "lite.json"
COMPARED = (
    "omniglot",
    "omniglot from scratch",
    "miniimagenet",
    "miniimagenet, rate 1e-4",
    "miniimagenet, rate 1e-4, longer",
)
"""Studies of ProtoNets with LITE, see lite.py."""
FULL = "protonets, h = all"
Row = dict[str, Any]


def main() -> None:
    """Rewrite or check the page."""
    rewrite_or_check("The tables of docs/lite.md.", {"docs/lite.md": TABLES})


def rows_of(*studies: str) -> list[Row]:
    """The rows of some studies, in the order of the file."""
    found: list[Row] = json.loads(RESULTS.read_text())
    return [row for row in found if row["study"] in studies]


def table(names: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    """A table: the first column left, the others right."""
    head = [*names]
    rows = ["| " + " | ".join(map(str, cells)) + " |" for cells in lines]
    return "\n".join(["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1), *rows]) + "\n"


def rmse(data: str) -> str:
    """RMSE of every estimator, mean over tasks."""
    return _estimators(data, "rmse", lambda rows: sum(row["value"] for row in rows) / len(rows))


def bias(data: str) -> str:
    """Bias of every estimator against what none stays below, the largest of the tasks'."""
    return _estimators(data, "bias", lambda rows: max(row["value"] / row["limit"] for row in rows))


def _estimators(data: str, measure: str, summary: Callable[[list[Row]], float]) -> str:
    """Learners and ways to draw H below each other, estimators and sizes of H side by side."""
    rows = [row for row in rows_of("estimator") if (row["data"], row["measure"]) == (data, measure)]
    cells: dict[tuple[str, str], dict[tuple[str, int], list[Row]]] = {}
    for row in rows:
        name, _, kind = row["estimator"].partition(", ")
        cells.setdefault((row["learner"], kind), {}).setdefault((name, row["h"]), []).append(row)
    columns = list(dict.fromkeys(column for line in cells.values() for column in line))
    lines = [
        (", ".join(line), *(f"{summary(found[column]):.2f}" for column in columns))
        for line, found in cells.items()
    ]
    return table(("learner, H", *(f"{name}, h = {h}" for name, h in columns)), lines)


def memory() -> str:
    """Peak of a step by support samples, with LITE and without: the process's, and the GPU's where measured."""
    return memory_of(rows_of("memory"))


def memory_of(rows: list[Row]) -> str:
    """The table of some rows, a line for each device and h."""
    supports = sorted({row["n_support"] for row in rows})
    lines = []
    for device, h in dict.fromkeys((row["device"], row["h"]) for row in rows):
        own = [row for row in rows if (row["device"], row["h"]) == (device, h)]
        cells = {row["n_support"]: f"{row['value'] / 1e9:.2f}" for row in own}
        name = (f"h = {h}" if h else "without LITE") + (", GPU" if device == "cuda" else "")
        lines.append((name, *(cells.get(count, "") for count in supports)))
    return table(("peak, GB", *(f"N = {count}" for count in supports)), lines)


def against_full() -> str:
    """ProtoNets with LITE and with full back-propagation, mean over seeds."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for study in COMPARED:
        for row in rows_of(study):
            groups.setdefault((study, row["learner"]), []).append(row)
    lines = [
        (
            f"{study}, {rows[0]['ways']}-way, N = {rows[0]['n_support']}",
            learner.partition("h = ")[2],
            f"{rows[0]['outer_steps']} x {rows[0]['tasks_per_step']}",
            len(rows),
            _accuracy(rows),
            _behind(rows, groups[study, FULL]),
        )
        for (study, learner), rows in groups.items()
    ]
    return table(
        ("ProtoNets on", "h", "outer steps x tasks", "seeds", "accuracy", "behind all, points"), lines
    )


def _behind(rows: list[Row], full: list[Row]) -> str:
    """Mean over the seeds that both have, and each; full back-propagation itself: nothing."""
    reached = {row["seed"]: row["value"] for row in full}
    if rows is full:
        return ""
    found = [100 * (reached[row["seed"]] - row["value"]) for row in rows if row["seed"] in reached]
    each = ", ".join(f"{value:.1f}" for value in found)
    return f"{sum(found) / len(found):.1f}" + (f" ({each})" if found[1:] else "")


def on_one_extractor() -> str:
    """Every learner on the same extractor, tested on two data sets, mean over seeds."""
    rows = rows_of("extractor")
    data = sorted({row["data"] for row in rows}, key=lambda name: name != "miniimagenet")
    learners = list(dict.fromkeys(row["learner"] for row in rows))
    lines = []
    for learner in learners:
        own = [row for row in rows if row["learner"] == learner]
        cells = [_accuracy([row for row in own if row["data"] == name]) for name in data]
        steps, seeds = f"{own[0]['outer_steps']} x {own[0]['tasks_per_step']}", {row["seed"] for row in own}
        lines.append((learner, own[0]["h"] or "all", steps, len(seeds), *cells))
    return table(("learner", "h", "outer steps x tasks", "seeds", *data), lines)


def _accuracy(rows: list[Row]) -> str:
    """Mean over runs, and the mean of their intervals over tasks."""
    value, ci95 = (sum(row[name] for row in rows) / len(rows) for name in ("value", "ci95"))
    return f"{value:.1%} ± {ci95:.1%}"


TABLES: Tables = {
    "estimator, glyphs": partial(rmse, "glyphs"),
    "bias, glyphs": partial(bias, "glyphs"),
    "estimator, miniimagenet": partial(rmse, "miniimagenet"),
    "memory": memory,
    "against full": against_full,
    "one extractor": on_one_extractor,
}


if __name__ == "__main__":
    main()
