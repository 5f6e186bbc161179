"""docs/regression.md, run from top to bottom as it is written, with short trainings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from .docs import run_page


def test_every_command_of_the_page_works_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run_page("regression.md")
    monkeypatch.delitem(sys.modules, "my_net")
    assert len(printed) == 10
    assert [line for line, text in printed.items() if "mean squared error" in text] == [
        line for line in printed if line.startswith("meta-train")
    ]
    manifest = json.loads(Path("my_bundle/manifest.json").read_text())
    assert [layer["name"] for layer in manifest["layers"]] == ["enter", "middle", "head"]
    assert {path.name for path in Path("adapted").iterdir()} >= {"report.json", "delta.safetensors"}
