"""Write the tables of README.md and docs/results.md from benchmarks/results/*.json.

python benchmarks/tables.py           rewrites both
python benchmarks/tables.py --check   fails if they say something else than the results
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"
PAGES = ("README.md", "docs/results.md")


def main() -> None:
    """Rewrite or check every page."""
    parser = argparse.ArgumentParser(description="Tables from benchmarks/results.")
    parser.add_argument("--check", action="store_true", help="do not write, fail if a page differs")
    check: bool = parser.parse_args().check
    for page in PAGES:
        text = (ROOT / page).read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        wanted = before + BEGIN + omniglot_table() + END + after
        if check and wanted != text:
            sys.exit(f"{page} is not what benchmarks/tables.py writes; run it without --check")
        if not check:
            (ROOT / page).write_text(wanted)


def omniglot_table() -> str:
    """Return the Omniglot rows as a Markdown table, with the machine they were measured on."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "omniglot.json").read_text())
    dense = {row["shots"]: row["planned_dynamic_bytes"] for row in rows if row["method"] == "maml++"}
    names = "method | shots | accuracy | zero step sizes | planned arena | measured | of MAML++ | trained"
    lines = [f"| {names} |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    lines += [_line(row, dense.get(row["shots"])) for row in rows]
    machines = sorted({_machine(row["machine"]) for row in rows})
    tasks = sorted({row["tasks"] for row in rows})
    note = (
        f"Omniglot, 5-way, {' or '.join(map(str, tasks))} tasks of the evaluation alphabets, 4Conv, "
        f"95 % intervals; arena: most frugal plan (one sample at a time, float32). Trained on {'; '.join(machines)}."
    )
    return "\n".join([*lines, "", note, "", "`python benchmarks/omniglot.py` makes the rows.", ""])


def _line(row: dict[str, Any], dense: int | None) -> str:
    share = "" if dense is None else f"{row['planned_dynamic_bytes'] / dense:.2f}"
    cells = [
        row["method"],
        row["shots"],
        f"{row['accuracy']:.1%} ± {row['ci95']:.1%}",
        f"{row['zero_step_sizes']:.0%}",
        _kilobytes(row["planned_dynamic_bytes"]),
        _kilobytes(row["measured_dynamic_bytes"]),
        share,
        f"{row['training_seconds'] / 60:.1f} min",
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def _kilobytes(count: int) -> str:
    return f"{count / 1000:.0f} kB"


def _machine(machine: dict[str, Any]) -> str:
    return f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']:.0f} GiB"


if __name__ == "__main__":
    main()
