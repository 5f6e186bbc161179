"""The peak meter against allocations of known size."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest
from edge_adapt.edge import measure
from edge_adapt.edge.measure import PeakMeter

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")


def touch(size_bytes: int) -> None:
    """Make `size_bytes` resident and give them back."""
    with mmap.mmap(-1, size_bytes) as memory:
        for start in range(0, size_bytes, mmap.PAGESIZE):
            memory[start] = 1


@linux
def test_memory_that_was_given_back_still_counts() -> None:
    with PeakMeter() as meter:
        touch(32 * MIB)
    assert meter.peak_bytes is not None
    assert 31 * MIB < meter.peak_bytes < 36 * MIB


@linux
def test_a_peak_before_the_block_does_not_count() -> None:
    touch(64 * MIB)
    with PeakMeter() as meter:
        touch(8 * MIB)
    assert meter.peak_bytes is not None
    assert meter.baseline_bytes is not None
    assert meter.peak_bytes < 12 * MIB
    assert meter.process_peak_bytes == meter.baseline_bytes + meter.peak_bytes


@linux
def test_memory_that_is_only_mapped_does_not_count() -> None:
    with PeakMeter() as meter, mmap.mmap(-1, 64 * MIB):
        pass
    assert meter.peak_bytes is not None
    assert meter.peak_bytes < 4 * MIB


@linux
def test_the_peak_can_be_read_inside_the_block() -> None:
    with PeakMeter() as meter:
        touch(16 * MIB)
        assert (meter.read() or 0) > 15 * MIB


def test_where_the_kernel_does_not_tell_nothing_is_made_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measure, "_CLEAR", tmp_path / "missing" / "clear_refs")
    with PeakMeter() as meter:
        touch(MIB)
    assert (meter.baseline_bytes, meter.process_peak_bytes, meter.peak_bytes) == (None, None, None)
