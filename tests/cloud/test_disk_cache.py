"""Decoded images on disk: bounded, kept between runs, never wrong pixels whatever happens to the file."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.cloud.errors import ConfigError
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
    tmp_path: Path,
) -> None:
    one = store(tmp_path, 4)
    holds(one, 1, 2)
    with pytest.raises(ConfigError, match=r"data\.cache_size: .*4x5x3\.pixels is in use with another size"):
        store(tmp_path, 8)
    del one
    gc.collect()
    larger = store(tmp_path, 8)
    assert holds(larger, 1, 2) == 0
    assert holds(larger, *range(3, 9)) == 6


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
