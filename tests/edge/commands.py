"""Run `edge-adapt`: in a process of its own, as a user does, or in this one, where only messages matter."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

from edge_adapt.edge.cli import main

COMMAND = (sys.executable, "-m", "edge_adapt.edge.cli")
Done = subprocess.CompletedProcess[str]


def edge_adapt(*arguments: object, code: int = 0) -> Done:
    """Run a command line and check its exit code; no traceback is ever right."""
    words = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def edge_adapt_here(*arguments: object, code: int = 0) -> Done:
    """Run a command line in this process, which is faster; the environment is restored afterwards."""
    words, out, err = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch.dict(os.environ):
        found = main(words)
    assert found == code, err.getvalue()
    return subprocess.CompletedProcess(words, found, out.getvalue(), err.getvalue())


def edge_adapt_json(*arguments: object, code: int = 0) -> dict[str, Any]:
    """Run with --json; stdout must hold one JSON object and nothing else."""
    value = json.loads(edge_adapt(*arguments, "--json", code=code).stdout)
    assert isinstance(value, dict)
    return value


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Start a command line in the background."""
    return subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def error_line(done: Done) -> str:
    """Return the one line a domain error is."""
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")
