"""The report says whether the plan's promise was kept, and a broken one does not look like success."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import engine_named
from edge_adapt.edge.inputs import from_arrays
from edge_adapt.edge.measure import PeakMeter
from edge_adapt.edge.report import TOLERANCE_BYTES, broken_promise, run_report
from edge_adapt.edge.run import Outcome, adapt
from edge_adapt.edge.units import format_bytes

from .bundles import support_arrays, write_bundle, write_npz
from .commands import edge_adapt_here, error_line


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(write_bundle(tmp_path_factory.mktemp("report") / "bundle"))


@pytest.fixture(scope="module")
def outcome(bundle: Bundle) -> Outcome:
    images, labels = support_arrays()
    plan, support = bundle.plan(), from_arrays(images, labels, bundle.files.manifest.input)
    return adapt(bundle.files, engine_named(plan.engine, bundle.files.path), lambda: (plan, support))


def measured(outcome: Outcome, peak: int | None, dynamic: int | None) -> Outcome:
    """The outcome with these figures in place of the measured ones."""
    meter = PeakMeter() if peak is None else PeakMeter(10_000_000, 10_000_000 + peak)
    return replace(
        outcome, meter=meter, adaptation=replace(outcome.adaptation, measured_dynamic_bytes=dynamic)
    )


@pytest.mark.parametrize(
    ("peak_excess", "dynamic_excess", "kept"),
    [
        (0, 0, True),
        (TOLERANCE_BYTES, 0, True),
        (TOLERANCE_BYTES + 1, 0, False),
        (-1000, 1, False),
        (None, 0, True),
        (None, 1, False),
        (None, None, None),
    ],
)
def test_kept_is_exact_for_the_arena_and_allows_two_mebibytes_for_the_peak(
    bundle: Bundle, outcome: Outcome, peak_excess: int | None, dynamic_excess: int | None, kept: bool | None
) -> None:
    plan = outcome.plan
    peak = None if peak_excess is None else plan.planned_peak_bytes + peak_excess
    dynamic = None if dynamic_excess is None else plan.dynamic_bytes + dynamic_excess
    report = run_report(bundle.files, measured(outcome, peak, dynamic), "reference", None)
    assert report["kept"] is kept
    assert (report["measured_peak_bytes"], report["measured_dynamic_bytes"]) == (peak, dynamic)
    assert (broken_promise(report) is None) == (kept is not False)


def test_a_broken_promise_names_what_was_measured_and_planned(bundle: Bundle, outcome: Outcome) -> None:
    plan = outcome.plan
    both = measured(outcome, plan.planned_peak_bytes + 5_000_000, plan.dynamic_bytes + 1_000_000)
    line = broken_promise(run_report(bundle.files, both, "reference", None))
    assert line is not None
    assert f"peak measured {format_bytes(plan.planned_peak_bytes + 5_000_000)}" in line
    assert f"arena measured {format_bytes(plan.dynamic_bytes + 1_000_000)}" in line
    assert "planned" in line


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are measured on Linux only")
def test_a_run_that_breaks_its_promise_prints_its_report_and_has_code_1(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_adapt.edge.report.TOLERANCE_BYTES", -(2**40))
    images, labels = support_arrays()
    support = write_npz(tmp_path / "support.npz", images=images, labels=labels)
    words = ("run", bundle.files.path, "--support", support, "-o", tmp_path / "adapted", "--json")
    done = edge_adapt_here(*words, code=1)
    assert "took more memory than planned" in error_line(done)
    assert json.loads(done.stdout)["kept"] is False
    assert (tmp_path / "adapted" / "delta.safetensors").exists()
