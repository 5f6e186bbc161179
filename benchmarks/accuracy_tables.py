"""Tables of docs/results.md on benchmarks/methods.py and pareto.py; `tables.py` puts them into the page."""

from __future__ import annotations

import json
from pathlib import Path

from pareto_picture import PENALTIES, Row, best_within, budgets, not_below

RESULTS = Path(__file__).resolve().parent / "results"


def methods_table() -> str:
    """Return a row per method: its short recipe, how long it took, what came out, its floor."""
    rows = json.loads((RESULTS / "methods.json").read_text())
    names = "method | outer steps x tasks | trained | seed | before adaptation | accuracy | floor | lower residual"
    lines = [f"| {names} |", "|---|---:|---:|---:|---:|---:|---:|---:|", *map(_method_line, rows)]
    machine = rows[0]["machine"]
    note = (
        f"{rows[0]['tasks']} tasks of the evaluation alphabets, 95 % intervals over tasks. The nearest support image, "
        f"pixel by pixel, is right on {rows[0]['nearest_class']:.1%} of their queries. Trained with one thread each on "
        f"{machine['cores']} cores of {machine['processor']} that other work shared, sometimes stopped: minutes are "
        "wall clock, an upper bound."
    )
    return "\n".join([*lines, "", note, "", "`python benchmarks/methods.py` makes the rows.", ""])


def _method_line(row: Row) -> str:
    residual = row["lower_residual"]
    cells = [
        row["method"],
        f"{row['outer_steps']} x {row['tasks_per_step']}",
        f"{row['minutes']:.1f} min",
        str(row["seed"]),
        f"{row['accuracy_before']:.1%}",
        _accuracy(row),
        f"{row['floor']:.0%}",
        "" if residual is None else f"{residual:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def pareto_tables() -> str:
    """Return every run of pareto.py, and each penalty's best at equal planned budgets."""
    rows = json.loads((RESULTS / "pareto.json").read_text())
    lines = [
        "| penalty | lambda or target | accuracy | zero step sizes | planned arena | layers that never learn |"
    ]
    lines += ["|---|---:|---:|---:|---:|---|", *map(_pareto_line, rows)]
    lines += ["", "| arena of at most | " + " | ".join(PENALTIES) + " | not below `activations` |"]
    lines += ["|---:|" + "---:|" * len(PENALTIES) + "---|"]
    lines += [_budget_line(rows, budget) for budget in budgets(rows)]
    first = rows[0]
    note = (
        f"Each run: {first['outer_steps']} outer steps of {first['tasks_per_step']} tasks from the same dense start, "
        f"seed {first['seed']}; {first['tasks']} test tasks, 95 % intervals. `python benchmarks/pareto.py` makes the "
        "rows and the picture."
    )
    return "\n".join([*lines, "", note, ""])


def _pareto_line(row: Row) -> str:
    cells = [
        row["penalty"],
        f"{row['value']:g}" if row["value"] else "",
        _accuracy(row),
        f"{row['zero_step_sizes']:.0%}",
        _kilobytes(row["planned_dynamic_bytes"]),
        ", ".join(row["frozen_layers"]) or "none",
    ]
    return "| " + " | ".join(cells) + " |"


def _budget_line(rows: list[Row], budget: int) -> str:
    found = {penalty: best_within(rows, penalty, budget) for penalty in PENALTIES}
    paper = found["activations"]
    good = [name for name, row in found.items() if name != "activations" and not_below(row, paper)]
    verdict = "no comparison" if paper is None else ", ".join(good) or "neither"
    cells = [_kilobytes(budget), *("no run" if row is None else _accuracy(row) for row in found.values())]
    return "| " + " | ".join([*cells, verdict]) + " |"


def _accuracy(row: Row) -> str:
    return f"{row['accuracy']:.1%} ± {row['ci95']:.1%}"


def _kilobytes(count: int) -> str:
    return f"{count / 1000:.0f} kB"
