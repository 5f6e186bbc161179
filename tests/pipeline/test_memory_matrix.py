"""The promise on memory, measured in fresh processes: every 57th row of the matrix of benchmarks/memory_matrix.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from edge_adapt.edge.engines import default_engine

from ..conftest import benchmark_module

EVERY = 57
matrix = benchmark_module("memory_matrix")
ROWS = matrix.rows_of(list(matrix.SMALL), default_engine())


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


def test_the_matrix_has_every_combination_once_and_the_sample_every_value() -> None:
    assert len({row.key for row in ROWS}) == len(ROWS) == 6 * 4 * 3 * 2 * 2
    sample = ROWS[::EVERY]
    for part in ("model", "mask", "micro_batch", "schedule", "saved_bits"):
        assert {getattr(row, part) for row in sample} == {getattr(row, part) for row in ROWS}


@pytest.mark.parametrize("row", ROWS[::EVERY], ids=lambda row: f"{row.model}-{row.mask}-{row.micro_batch}")
def test_what_is_measured_is_what_was_planned(row: object, bundles: Path) -> None:
    result = matrix.run(row, matrix.bundle_of(row.model, bundles))  # type: ignore[attr-defined]
    if result["measured_peak_bytes"] is None:
        pytest.skip("peaks cannot be measured here")
    assert list(matrix.violations({**vars(row), **result})) == []


def test_a_broken_promise_is_a_violation() -> None:
    kept = {"planned_peak_bytes": 9 << 20, "measured_peak_bytes": 11 << 20}
    kept |= {"dynamic_bytes": 8 << 20, "measured_dynamic_bytes": 8 << 20, **vars(ROWS[0])}
    assert list(matrix.violations(kept)) == []
    for change, message in (
        ({"measured_peak_bytes": (11 << 20) + 1}, "2 MiB above"),
        ({"measured_dynamic_bytes": (8 << 20) + 1}, "arena measured"),
        ({"measured_peak_bytes": 8 << 20}, "peak planned"),
        ({"measured_dynamic_bytes": 7 << 20}, "arena planned"),
    ):
        (text,) = matrix.violations({**kept, **change})
        assert message in text
