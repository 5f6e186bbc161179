"""docs/regression.md, run from top to bottom as it is written, with short trainings."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from edge_adapt.cloud.cli import main as meta_train
from edge_adapt.export.cli import main as export_bundle

from ..edge.commands import edge_adapt_here

PAGE = (Path(__file__).parents[2] / "docs" / "regression.md").read_text()
BLOCKS = re.findall(r"```(bash|python)(?: file=(\S+))?\n(.*?)```", PAGE, re.DOTALL)
SHORT = [
    f"--set=train.{name}={value}"
    for name, value in {"outer_steps": 2, "validation_tasks": 2, "test_tasks": 2, "tasks_per_step": 2}.items()
]


def run(line: str) -> str:
    """Run one line of a shell block in this process; return what it prints on stdout."""
    command, *words = shlex.split(line)
    if command == "meta-train":
        short = SHORT if words[0] == "run" else ["--tasks", "4"]
        done = CliRunner().invoke(meta_train, [*words, *short])
        assert done.exit_code == 0, done.stderr
        return done.stdout
    if command == "export-bundle":
        assert export_bundle(words) == 0
        return ""
    assert command == "edge-adapt"
    return edge_adapt_here(*words).stdout


def test_every_command_of_the_page_works_in_the_order_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed: dict[str, str] = {}
    for language, file, text in BLOCKS:
        if file:
            Path(file).write_text(text)
        elif language == "python":
            exec(compile(text, "docs/regression.md", "exec"), {})
        else:
            printed |= {line: run(line) for line in text.splitlines()}
    monkeypatch.delitem(sys.modules, "my_net")
    assert len(printed) == 10
    assert [line for line, text in printed.items() if "mean squared error" in text] == [
        line for line in printed if line.startswith("meta-train")
    ]
    manifest = json.loads(Path("my_bundle/manifest.json").read_text())
    assert [layer["name"] for layer in manifest["layers"]] == ["enter", "middle", "head"]
    assert {path.name for path in Path("adapted").iterdir()} >= {"report.json", "delta.safetensors"}
