"""What is kept of a streamed support set: the names and labels of its samples, priced as they are read."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.errors import SupportError
from edge_adapt.edge.inputs import ArraySpec, ClassLabels, from_arrays, stream_samples
from edge_adapt.edge.inputs.folders import class_groups
from edge_adapt.edge.inputs.held import Held
from edge_adapt.edge.inputs.labels import labels_bytes
from numpy.typing import NDArray

SPEC, LABELS = ArraySpec((1,)), ClassLabels(6)
COUNT = 6000


def traced(what: Callable[[], Any]) -> tuple[Any, int, int]:
    """What a call returns, what that keeps in memory, and the most that was in memory meanwhile."""
    tracemalloc.start()
    try:
        found = what()
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return found, kept, most


def archive(path: Path, labels: NDArray[Any]) -> Path:
    np.savez_compressed(path, images=np.zeros((len(labels), 1), np.float32), labels=labels)
    return path


def wide_labels(count: int = COUNT) -> NDArray[Any]:
    return np.array([f"{'k' * 190}{number % 4}" for number in range(count)])


@pytest.mark.parametrize("pattern", ["{}.png", "{:0230d}.png", "photo größer 图片 {}.jpeg"])
def test_the_price_of_a_folders_names_is_what_they_take(pattern: str, tmp_path: Path) -> None:
    for number in range(2000):
        place = tmp_path / ("long class " * 15 if number % 9 else "b")
        place.mkdir(exist_ok=True)
        (place / pattern.format(number)).touch()
    held = Held("photos", None)
    groups, kept, most = traced(lambda: dict(class_groups(tmp_path, held)))
    names = held.total - 8 * sum(map(len, groups.values()))
    assert kept <= most <= names + 20_000
    assert names <= 1.6 * kept


def test_labels_of_any_width_take_8_bytes_a_sample_while_they_are_read(tmp_path: Path) -> None:
    labels = wide_labels()
    path = archive(tmp_path / "s.npz", labels)
    stream_samples(path, SPEC, LABELS)  # what libraries load on first use
    support, _, most = traced(lambda: stream_samples(path, SPEC, LABELS))
    assert labels.nbytes > 4_000_000
    assert support.held_bytes <= 8 * COUNT + 4 * 400
    assert most <= support.held_bytes + support.decode_bytes + 200_000


@pytest.mark.parametrize(
    "labels",
    [
        wide_labels(700),
        np.array([3, -5, 3, 9000, -5], ">i4"),
        np.array([2**64 - 1, 0, 7], np.uint64),
        np.array(["b", "", "ä", "B", "b"], ">U4"),
        np.repeat(np.arange(6, dtype=np.int8), 30_000)[::-1],
    ],
)
def test_labels_read_in_pieces_are_those_read_whole(labels: NDArray[Any], tmp_path: Path) -> None:
    support = stream_samples(archive(tmp_path / "s.npz", labels), SPEC, LABELS)
    whole = from_arrays(np.zeros((len(labels), 1), np.float32), labels, SPEC)
    assert support.class_names == whole.class_names
    assert np.array_equal(support.labels, whole.labels)


def test_what_there_is_no_room_for_is_not_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "s.npz", wide_labels(50_000))
    refusal = "names and labels of its samples take more than 300 kB"

    def refused() -> None:
        with pytest.raises(SupportError, match=refusal):
            stream_samples(path, SPEC, LABELS, 300_000)

    assert traced(refused)[2] < 200_000
    one_label = archive(tmp_path / "one.npz", np.array(["a" * 1_000_000, "b"]))
    with pytest.raises(SupportError, match="names and labels of its samples take more than 5 MB"):
        stream_samples(one_label, SPEC, LABELS, 5_000_000)
    assert labels_bytes(((2,), np.dtype("<U1000000"))) > 20_000_000
    (tmp_path / "photos" / "a").mkdir(parents=True)
    for number in range(100):
        (tmp_path / "photos" / "a" / f"{number:0200d}.png").touch()
    held = Held("photos", 10_000)
    with pytest.raises(SupportError, match="raise the budget, or give fewer samples or shorter names"):
        dict(class_groups(tmp_path / "photos", held))
    assert held.total < 10_400


def test_damaged_labels_and_too_many_classes_are_named(tmp_path: Path) -> None:
    with pytest.raises(SupportError, match="classes, but the model's head has 6 outputs"):
        stream_samples(archive(tmp_path / "s.npz", np.arange(100_000)), SPEC, LABELS)
    with pytest.raises(SupportError, match="at least 2 classes, got 1"):
        stream_samples(archive(tmp_path / "s.npz", np.zeros(9, int)), SPEC, LABELS)
    path = tmp_path / "s.npz"
    np.savez(path, images=np.zeros((COUNT, 1), np.float32), labels=np.arange(COUNT) % 2)
    with zipfile.ZipFile(path) as whole:
        start = whole.getinfo("labels.npy").header_offset + 9000
    raw = bytearray(path.read_bytes())
    raw[start : start + 8] = bytes(range(8))
    path.write_bytes(raw)
    with pytest.raises(SupportError, match=r"s\.npz, labels: cannot be read"):
        stream_samples(path, SPEC, LABELS)
