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


def test_the_table_tells_devices_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import lite_tables

    rows = [
        {"device": device, "h": h, "n_support": 50, "value": value}
        for device, h, value in (("cpu", 8, 2e9), ("cpu", None, 3e9), ("cuda", 8, 1e9), ("cuda", None, 4e9))
    ]
    lines = lite_tables.memory_of(rows).splitlines()[2:]
    assert lines == [
        "| h = 8 | 2.00 |",
        "| without LITE | 3.00 |",
        "| h = 8, GPU | 1.00 |",
        "| without LITE, GPU | 4.00 |",
    ]


def test_another_size_does_not_reach_the_results_file_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import lite_memory

    asked: list[Path | None] = []
    monkeypatch.setattr(lite_memory, "benchmark", lambda *given: asked.append(given[-1]))
    for words in (("--size", "64"), (), ("--size", "64", "--out", "rows.json")):
        monkeypatch.setattr(sys, "argv", ["lite_memory.py", *words])
        lite_memory.main()
    assert asked == [None, lite_memory.OUT, Path("rows.json")]
