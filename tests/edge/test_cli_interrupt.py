"""A run that is stopped from outside continues to the very numbers of a run that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from edge_adapt.edge import BundleError
from edge_adapt.edge.bundle import TensorFile

from .bundles import support_arrays, write_bundle, write_npz
from .commands import edge_adapt, edge_adapt_json, start

STEPS = 60


def finished_steps(partial: Path) -> int:
    """Return how many steps the leftover holds; 0 where there is none yet."""
    try:
        return len(json.loads(TensorFile.open(partial / "progress.safetensors").metadata["losses"]))
    except BundleError:
        return 0


def wait_for_steps(process: subprocess.Popen[bytes], partial: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while finished_steps(partial) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_run_resumes_to_the_numbers_of_an_uninterrupted_one(
    tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    bundle = write_bundle(tmp_path / "bundle", step_size=0.01)
    images, labels = support_arrays()
    support = write_npz(tmp_path / "support.npz", images=images, labels=labels)
    arguments = ("run", bundle, "--support", support, "--steps", STEPS, "-o")
    whole = edge_adapt_json(*arguments, tmp_path / "whole")

    partial = tmp_path / "adapted.partial"
    process = start(*arguments, tmp_path / "adapted")
    wait_for_steps(process, partial, 3)
    process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert b"Traceback" not in stderr
    assert not (tmp_path / "adapted").exists()
    kept = finished_steps(partial)
    assert 3 <= kept < STEPS
    if sent == signal.SIGINT:
        assert f"interrupted after {kept} finished steps".encode() in stderr

    done = edge_adapt(*arguments, tmp_path / "adapted", "--json")
    assert f"continuing after step {kept} of {STEPS}" in done.stderr
    resumed = json.loads(done.stdout)
    for key in ("losses", "loss", "support_accuracy", "steps"):
        assert resumed[key] == whole[key]
    delta = "delta.safetensors"
    assert (tmp_path / "adapted" / delta).read_bytes() == (tmp_path / "whole" / delta).read_bytes()
    assert not partial.exists()
