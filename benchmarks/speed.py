"""Write the tables of docs/speed.md from benchmarks/results/edge.json.

python benchmarks/speed.py           rewrites them
python benchmarks/speed.py --check   fails if the page says something else than the results
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pages import ROOT, rewrite_or_check

OURS, THEIRS = "native", "ort-training"
OTHERS = ("onnxruntime", "torch")
Row = dict[str, Any]


def main() -> None:
    """Rewrite or check the page."""
    rewrite_or_check("The tables of docs/speed.md.", {"docs/speed.md": {"speed": lambda: tables(_rows())}})


def tables(rows: list[Row]) -> str:
    """Return two Markdown tables, time and memory, and the machine."""
    groups: dict[tuple[str, int], dict[str, Row]] = {}
    for row in rows:
        groups.setdefault((row["case"], row["threads"]), {})[row["engine"]] = row
    time = [
        "| case | threads | native, s | onnxruntime-training | ratio | onnxruntime | PyTorch | processor time |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"{line} {group[OURS]['cpu_seconds'] / group[THEIRS]['cpu_seconds']:.2f} |"
            for line, group in zip(_lines(groups, "seconds", _seconds), _full(groups), strict=True)
        ),
    ]
    memory = [
        "| case | threads | native, MB | onnxruntime-training | ratio | onnxruntime | PyTorch | native, planned |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"{line} {group[OURS]['planned_peak_bytes'] / 1e6:.1f} |"
            for line, group in zip(_lines(groups, "measured_peak_bytes", _mb), _full(groups), strict=True)
        ),
    ]
    machine = rows[0]["machine"]
    measured = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}."
    return "\n".join([*time, "", *memory, "", measured, ""])


def _rows() -> list[Row]:
    rows: list[Row] = json.loads((ROOT / "benchmarks" / "results" / "edge.json").read_text())
    return rows


def _full(groups: dict[tuple[str, int], dict[str, Row]]) -> Iterator[dict[str, Row]]:
    return (group for group in groups.values() if OURS in group and THEIRS in group)


def _lines(groups: dict[tuple[str, int], dict[str, Row]], key: str, text: Any) -> Iterator[str]:
    for group in _full(groups):
        ours, theirs = group[OURS], group[THEIRS]
        others = [text(group[name][key]) if name in group else "-" for name in OTHERS]
        figures = (text(ours[key]), text(theirs[key]), f"{ours[key] / theirs[key]:.2f}", *others)
        yield f"| {ours['case']} | {ours['threads']} | " + " | ".join(figures) + " |"


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"


if __name__ == "__main__":
    main()
