"""docs/lite.md, run from top to bottom as it is written, with short trainings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .docs import run_page


def test_every_command_of_the_page_works_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run_page("lite.md")
    assert len(printed) == 9
    kinds = {
        name: json.loads(Path(name, "manifest.json").read_text())["kind"] for name in ("bundle", "prototypes")
    }
    assert kinds == {"bundle": "simple-cnaps", "prototypes": "prototypes"}
    report = json.loads(Path("adapted/report.json").read_text())
    assert report["planned_peak_bytes"] <= 2e6
    assert report["support_accuracy"] > 0.6  # an untrained embedding already tells its own samples apart
    assert np.load("support.npz")["images"].shape == (25, 28, 28, 1)
