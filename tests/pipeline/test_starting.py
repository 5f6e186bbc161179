"""Ctrl-C while a program starts: one line and exit code 130, whatever is being imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.argv[0] = {program!r}
sys.meta_path.insert(0, CtrlC())
from edge_adapt.{package}.cli import main
main(["--help"])
"""


@pytest.mark.parametrize(
    ("program", "package", "line"),
    [
        ("edge-adapt", "edge", b"error: interrupted\n"),
        ("export-bundle", "export", b"error: interrupted\n"),
        ("meta-train", "cloud", b"Error: interrupted\n"),
    ],
)
def test_ctrl_c_among_the_imports(program: str, package: str, line: bytes) -> None:
    code = PROGRAM.format(program=program, package=package)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (130, b"", line)


def test_a_program_of_others_keeps_its_own_ctrl_c() -> None:
    code = PROGRAM.format(program="notebook", package="edge")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert found.stderr.rstrip().endswith(b"KeyboardInterrupt")
