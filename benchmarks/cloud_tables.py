"""Write the tables of docs/methods.md from benchmarks/results/cloud_throughput.json and cloud_memory.json.

python benchmarks/cloud_tables.py           rewrites them
python benchmarks/cloud_tables.py --check   fails if the page says something else than the results
"""

from __future__ import annotations

import json
from typing import Any

from pages import ROOT, Tables, rewrite_or_check

RESULTS = ROOT / "benchmarks" / "results"
OURS, OTHERS = "edge-adapt", ("higher", "torchopt")
COLUMNS = ((28, 1), (28, 20), (28, 50), (84, 5))
RATES = ("tasks_per_second", "tasks_per_cpu_second")
Row = dict[str, Any]


def main() -> None:
    """Rewrite or check the page."""
    rewrite_or_check("The tables of docs/methods.md.", {"docs/methods.md": TABLES})


def throughput(rows: list[Row]) -> str:
    """Tasks per second and memory of every library, and ours against the faster of the others."""
    lines = [
        "| device | pixels | threads | edge-adapt, tasks/s | higher | torchopt | ratio to the faster "
        "| the same in processor time | memory, MB: ours / higher / torchopt |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    groups: dict[tuple[str, int, int], dict[str, Row]] = {}
    for row in rows:
        groups.setdefault((row["device"], row["image_size"], row["threads"]), {})[row["library"]] = row
    for key, group in groups.items():
        rates, worked = ([group[name][rate] for name in (OURS, *OTHERS)] for rate in RATES)
        memory = " / ".join(f"{group[name]['peak_bytes'] / 1e6:.0f}" for name in (OURS, *OTHERS))
        ratios = [f"{rate[0] / max(rate[1:]):.2f}" for rate in (rates, worked)]
        cells = [*key, *(f"{rate:.2f}" for rate in rates), *ratios, memory]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    rounds = min(len(row["rounds"]) for row in rows)
    return "\n".join([*lines, "", f"{_measured(rows)} Rounds: {rounds}.", ""])


def memory(rows: list[Row]) -> str:
    """Peak bytes by method; columns are image size and inner steps."""
    lines = [
        "| | 28 px, 5-way 1-shot, 5 queries: K = 1 | K = 20 | K = 50 | 84 px RGB, 5-way 5-shot, 5 queries: K = 5 |",
        "|---|---:|---:|---:|---:|",
    ]
    found: dict[str, dict[tuple[int, int], str]] = {}
    for row in rows:
        name = row["method"] + (", checkpointed" if row.get("checkpoint_steps") else "")
        found.setdefault(name, {})[row["image_size"], row["inner_steps"]] = _mb(row["peak_bytes"])
    for name, cells in found.items():
        lines.append(f"| {name} | " + " | ".join(cells.get(column, "") for column in COLUMNS) + " |")
    return "\n".join([*lines, "", _measured(rows), ""])


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 100e6 else f"{size / 1e6:.0f} MB"


def _measured(rows: list[Row]) -> str:
    machine = rows[0]["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}."


def _rows(name: str) -> list[Row]:
    rows: list[Row] = json.loads((RESULTS / name).read_text())
    return rows


TABLES: Tables = {
    "throughput": lambda: throughput(_rows("cloud_throughput.json")),
    "memory": lambda: memory(_rows("cloud_memory.json")),
}

if __name__ == "__main__":
    main()
