"""`edge-adapt plan`: one readable line, the sweep as a table, as JSON and as a picture, and the engine's choice."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_adapt.edge.cli.plan_text import CHAINS, how
from edge_adapt.edge.engines import default_engine
from edge_adapt.edge.lower.choice import TILINGS

from .bundles import write_bundle
from .commands import edge_adapt_here, edge_adapt_json

ROW_KEYS = {
    "planned_peak_bytes", "dynamic_bytes", "predicted_seconds", "macs", "benefit_kept", "schedule", "storage",
    "saved_bits", "cache_bits", "micro_batch", "tiling",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("plan") / "bundle")


def test_every_tiling_has_words() -> None:
    assert set(CHAINS) == set(TILINGS)


def test_the_line_for_people_says_what_differs_from_the_plainest_plan() -> None:
    plain = {
        "engine": "native", "threads": 2, "samples": 25, "micro_batch": 1, "schedule": "accumulate",
        "storage": "dense", "saved_bits": 32, "cache_bits": 32, "recompute": False, "tiling": "maps", "cap_cut": 0.0,
        "freezing": {"layers": [[], []], "reason": ""},
    }  # fmt: skip
    assert how(plain) == (
        "engine native (2 threads), 25 samples 1 at a time, schedule accumulate, dense storage, kept maps in 32 bits"
    )
    changed = {
        "schedule": "cached suffix",
        "cache_bits": 16,
        "recompute": True,
        "tiling": "norms",
        "cap_cut": 0.25,
    }
    frozen = {"freezing": {"layers": [["conv1"], ["conv1", "norm1"]], "reason": "why"}}
    assert how({**plain, **changed, **frozen}).endswith(
        "cached maps in 16 bits, cheap values computed again, norms in tiles, 25% fewer channels kept,"
        " 2 layers frozen to fit (why)"
    )


def test_the_sweep_has_a_row_per_plan_and_a_picture(bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "frontier.png"
    result = edge_adapt_json("plan", bundle, "--sweep", "--samples", 3, "--plot", picture)
    rows = result["frontier"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(rows) > 3
    assert all(set(row) >= ROW_KEYS for row in rows)
    assert rows[0]["planned_peak_bytes"] == result["planned_peak_bytes"]
    peaks = [row["planned_peak_bytes"] for row in rows]
    assert peaks == sorted(set(peaks), reverse=True)


def test_the_sweep_prints_a_table_for_people(bundle: Path) -> None:
    budget = edge_adapt_json("plan", bundle, "--samples", 3)["planned_peak_bytes"] // 2
    lines = edge_adapt_here(
        "plan", bundle, "--sweep", "--samples", 3, "--memory-budget", budget
    ).stdout.splitlines()
    assert lines[0].split()[:2] == ["planned", "peak"]
    assert all(int(line.split()[0]) <= budget for line in lines[1:])


@pytest.mark.parametrize("engine", sorted({"reference", default_engine()}))
def test_a_plan_names_its_engine(bundle: Path, engine: str) -> None:
    plan = edge_adapt_json("plan", bundle, "--engine", engine)
    assert (plan["engine"], plan["threads"]) == (engine, 1)
    assert f"engine {engine} (1 thread)" in edge_adapt_here("plan", bundle, "--engine", engine).stdout
