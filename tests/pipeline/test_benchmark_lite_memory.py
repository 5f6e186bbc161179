"""benchmarks/lite_memory.py, small: peaks of processes of their own, flat with LITE."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "lite_memory.py"


def test_the_peak_of_a_step_stays_where_it_is_with_lite_and_not_without(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        "--size",
        "64",
        "--only",
        "50",
        "200",
        "--out",
        str(tmp_path / "rows.json"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    rows = json.loads((tmp_path / "rows.json").read_text())
    peaks = {(row["h"], row["n_support"]): row["value"] for row in rows}
    assert peaks.keys() == {(8, 50), (8, 200), (None, 50), (None, 200)}
    assert {(row["study"], row["image_size"], row["unit"]) for row in rows} == {("memory", 64, "bytes")}
    assert peaks[8, 200] <= 1.1 * peaks[8, 50]
    assert peaks[None, 200] - peaks[None, 50] > 150e6, "the meter sees the graph of 150 more images"


def test_the_picture_is_drawn_from_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import lite_memory

    rows = [
        {"device": "cpu", "h": h, "n_support": count, "value": value}
        for h, count, value in ((8, 50, 2e9), (8, 1000, 2.1e9), (None, 50, 5e9), (None, 100, 9e9))
    ]
    lite_memory.draw(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
