"""A page of the docs, run from top to bottom as it is written, with short trainings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from click.testing import CliRunner
from edge_adapt.cloud.cli import main as meta_train
from edge_adapt.export.cli import main as export_bundle

from ..edge.commands import edge_adapt_here

DOCS = Path(__file__).parents[2] / "docs"
SHORT: Mapping[str, Sequence[str]] = {
    "run": [
        f"--set=train.{name}={value}"
        for name, value in {
            "outer_steps": 2, "validation_tasks": 2, "test_tasks": 2, "tasks_per_step": 2
        }.items()
    ],
    "eval": ["--tasks", "4"],
    "pretrain": ["--set=epochs=1"],
}  # fmt: skip
"""What makes a verb of meta-train short."""


def run_page(name: str) -> dict[str, str]:
    """Run the blocks of docs/NAME in the working directory; return what each shell line printed on stdout."""
    page = (DOCS / name).read_text()
    printed: dict[str, str] = {}
    for language, file, text in re.findall(r"```(bash|python)(?: file=(\S+))?\n(.*?)```", page, re.DOTALL):
        if file:
            Path(file).write_text(text)
        elif language == "python":
            exec(compile(text, f"docs/{name}", "exec"), {})
        else:
            printed |= {line: run(line) for line in text.splitlines()}
    return printed


def run(line: str) -> str:
    """Run one line of a shell block in this process; return what it prints on stdout."""
    command, *words = shlex.split(line)
    if command == "meta-train":
        done = CliRunner().invoke(meta_train, [*words, *SHORT[words[0]]])
        assert done.exit_code == 0, done.stderr
        return done.stdout
    if command == "export-bundle":
        assert export_bundle(words) == 0
        return ""
    assert command == "edge-adapt"
    return edge_adapt_here(*words).stdout
