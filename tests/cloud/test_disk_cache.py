"""Decoded images on disk: bounded, kept between runs, never wrong pixels whatever happens to the file."""

from __future__ import annotations

import fcntl
import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.tasks import shared_file
from edge_adapt.cloud.tasks.disk_cache import HEADER_BYTES, CacheConfig, DiskCache, default_folder
from numpy.typing import NDArray

SHAPE = (4, 5, 3)
SLOT = HEADER_BYTES + 60


class Store:
    """Images by number through a cache; counts what had to be decoded."""

    def __init__(self, cache: DiskCache) -> None:
        self.cache, self.decoded = cache, 0

    def read(self, number: int) -> NDArray[np.uint8]:
        def decode(out: NDArray[np.uint8]) -> None:
            self.decoded += 1
            out[...] = image(number)

        out = np.empty(SHAPE, np.uint8)
        self.cache.read(number.to_bytes(16, "big"), decode, out)
        return out


def image(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, SHAPE, np.uint8)


def store(folder: Path, slots: int) -> Store:
    """A cache of its own, as another process has it."""
    return Store(DiskCache(folder, SHAPE, slots * SLOT))


def holds(store: Store, *numbers: int) -> int:
    """Read these images, check them, and count those that had to be decoded."""
    before = store.decoded
    for number in numbers:
        np.testing.assert_array_equal(store.read(number), image(number))
    return store.decoded - before


def test_an_image_is_decoded_once_while_it_fits_and_after_a_restart_not_at_all(tmp_path: Path) -> None:
    first = store(tmp_path, 10)
    assert holds(first, *range(1, 11)) == 10
    assert holds(first, *range(1, 11)) == 0
    del first
    assert holds(store(tmp_path, 10), *range(1, 11)) == 0


def test_the_file_has_the_size_asked_for_and_never_grows(tmp_path: Path) -> None:
    small = Store(DiskCache(tmp_path, SHAPE, 3 * SLOT + 10))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == 3 * SLOT
    assert holds(small, *range(1, 20)) == 19
    assert file.stat().st_size == 3 * SLOT


def test_the_image_used_longest_ago_makes_room(tmp_path: Path) -> None:
    small = store(tmp_path, 3)
    holds(small, 1, 2, 3)
    holds(small, 1)
    holds(small, 4)
    assert holds(small, 1, 3, 4) == 0
    assert holds(small, 2) == 1


@pytest.mark.parametrize("start", [0, 17, HEADER_BYTES + 7])
def test_a_slot_that_was_cut_short_or_damaged_is_decoded_again(start: int, tmp_path: Path) -> None:
    holds(store(tmp_path, 2), 1, 2)
    gc.collect()
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[start] ^= 0xFF
    file.write_bytes(content)
    assert holds(store(tmp_path, 2), 1, 2) == 1


def test_a_process_killed_while_it_writes_leaves_a_cache_of_right_pixels(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import os, signal, runpy\n"
        f"own = runpy.run_path({__file__!r})\n"
        "from pathlib import Path\n"
        "write, count = os.pwritev, 0\n"
        "def cut(file, buffers, offset):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == 3:\n"
        "        os.pwrite(file, b''.join(map(bytes, buffers))[:40], offset)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return write(file, buffers, offset)\n"
        "os.pwritev = cut\n"
        f"own['holds'](own['store'](Path({str(tmp_path)!r}), 5), 1, 2, 3)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert holds(store(tmp_path, 5), 1, 2, 3) == 1


def test_two_processes_may_use_one_file_at_once(tmp_path: Path) -> None:
    one, other = store(tmp_path, 6), store(tmp_path, 6)
    rng = np.random.default_rng(0)
    for turn in range(200):
        holds((one, other)[turn % 2], int(rng.integers(1, 9)))
    again = store(tmp_path, 6)
    assert len([number for number in range(1, 9) if number.to_bytes(16, "big") in again.cache]) >= 4


def test_what_one_process_adds_to_free_slots_the_other_does_not_overwrite(tmp_path: Path) -> None:
    one, other = store(tmp_path, 4), store(tmp_path, 4)
    holds(one, 1, 2)
    holds(other, 3, 4)
    assert holds(store(tmp_path, 4), 1, 2, 3, 4) == 0
    assert holds(one, 1, 2) == 0


def test_another_size_is_refused_while_the_file_is_in_use_and_kept_images_stay_when_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_file, "PATIENCE_SECONDS", 0.1)
    one = store(tmp_path, 4)
    holds(one, 1, 2)
    with pytest.raises(ConfigError, match=r"data\.cache_size: .*4x5x3\.pixels is in use with another size"):
        store(tmp_path, 8)
    del one
    gc.collect()
    larger = store(tmp_path, 8)
    assert holds(larger, 1, 2) == 0
    assert holds(larger, *range(3, 9)) == 6


def test_a_cache_that_cannot_grow_keeps_what_it_has(tmp_path: Path) -> None:
    holds(store(tmp_path, 4), 1, 2)
    gc.collect()
    with pytest.raises(ConfigError, match=r"data\.cache: .* cannot be kept there"):
        DiskCache(tmp_path, SHAPE, 2**61)
    assert holds(store(tmp_path, 4), 1, 2) == 0


TOGETHER = """
import runpy, sys, time
from pathlib import Path
open_shared = runpy.run_path(sys.argv[1])["open_shared"]
print("ready", flush=True)
start = float(sys.stdin.readline())
for turn in range(40):
    while time.time() < start + turn / 50:
        pass
    open_shared(Path(sys.argv[2]) / str(turn), 10**6)
"""


def test_processes_that_start_together_agree_on_a_new_size(tmp_path: Path) -> None:
    """Each sees the old size, and that the other has the file open."""
    command = [sys.executable, "-c", TOGETHER, shared_file.__file__, str(tmp_path)]
    both = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert [child.stdout.readline() for child in both if child.stdout] == ["ready\n"] * 2
    start = str(time.time() + 0.2)
    for child in both:
        assert child.stdin is not None
        print(start, file=child.stdin, flush=True)
    assert [child.communicate()[1] for child in both] == ["", ""]


@pytest.mark.parametrize("lock", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_a_file_in_use_with_another_size_is_waited_for(lock: int, tmp_path: Path) -> None:
    """Shared: another process that also wants to change it; alone: one that does."""
    path = store(tmp_path, 4).cache.path
    gc.collect()
    with path.open() as held:
        fcntl.flock(held, lock)
        release = threading.Timer(0.3, fcntl.flock, (held, fcntl.LOCK_UN))
        release.start()
        assert store(tmp_path, 8).cache.slots == 8
        release.join()


@pytest.mark.parametrize("slots", [1, 1500])
def test_opening_takes_no_memory_for_slots_that_nothing_lies_in(slots: int, tmp_path: Path) -> None:
    holds(store(tmp_path, 600_000), *range(1, slots + 1))
    gc.collect()
    tracemalloc.start()
    try:
        again = store(tmp_path, 600_000)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 10**6
    assert holds(again, *range(1, slots + 1)) == 0


@pytest.mark.parametrize("shape", [SHAPE, (40, 50, 3)])
def test_what_lies_beyond_an_empty_slot_is_found_again(shape: tuple[int, int, int], tmp_path: Path) -> None:
    """Slots below and above the size of a page, which are read in two ways."""
    slot, keys = HEADER_BYTES + int(np.prod(shape)), [n.to_bytes(16, "big") for n in range(1, 21)]
    first, out = DiskCache(tmp_path, shape, 30 * slot), np.zeros(shape, np.uint8)
    for key in keys:
        first.read(key, lambda out: None, out)
    with first.path.open("r+b") as file:
        file.seek(4 * slot)
        file.write(bytes(slot))
    again = DiskCache(tmp_path, shape, 30 * slot)
    assert [key in again for key in keys] == [n != 4 for n in range(20)]


def test_a_cache_that_holds_no_image_or_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.cache_size: 50 B holds no image of shape \(4, 5, 3\), .* 80 B"
    ):
        DiskCache(tmp_path, SHAPE, 50)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        ConfigError, match=r"data\.cache: .* cannot be kept there \(.*\); choose another folder"
    ):
        DiskCache(tmp_path / "file", SHAPE, 500)
    with pytest.raises(ConfigError, match=r"data\.cache: .*EB|GB cannot be kept there"):
        DiskCache(tmp_path / "huge", SHAPE, 2**61)


def test_data_sets_of_a_process_share_a_cache(tmp_path: Path) -> None:
    settings = CacheConfig(tmp_path, 10 * SLOT)
    assert settings.open(SHAPE) is CacheConfig(tmp_path, 10 * SLOT).open(SHAPE)
    assert settings.open(SHAPE) is not settings.open((5, 4, 3))


def test_the_default_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "edge-adapt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path(os.path.expanduser("~")) / ".cache" / "edge-adapt"
