"""mini-ImageNet: its splits, its pixels, and files that are not it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.tasks import load_dataset
from edge_adapt.cloud.tasks.miniimagenet import FILES
from PIL import Image

DATA = Path(os.environ.get("EDGE_ADAPT_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_files = pytest.mark.skipif(
    not all((DATA / file).is_file() for files in FILES.values() for file in files),
    reason="miniimagenet84_*.npz not found: set EDGE_ADAPT_DATA to their folder",
)
HEADER = b"\xff\xd8"
"""What a JPEG file starts with; the tiny files below share no more than this."""


def write_file(folder: Path, split: str, part: int = 0, **changes: object) -> None:
    """Two classes of two plain pictures, brighter from one to the next, the classes' images mixed."""
    scans = []
    for grey in (10, 60, 110, 160):
        jpeg = io.BytesIO()
        Image.new("RGB", (84, 84), (grey, grey, grey)).save(jpeg, "JPEG", quality=95)
        scans.append(np.frombuffer(jpeg.getvalue().removeprefix(HEADER), np.uint8))
    arrays: dict[str, object] = {
        "jpeg_header": np.frombuffer(HEADER, np.uint8),
        "jpeg_data": np.concatenate(scans),
        "offsets": np.cumsum([0, *map(len, scans)]),
        "labels": np.array([0, 1, 0, 1], np.uint8),
        "class_names": np.array([f"{split} {part} first", f"{split} {part} second"]),
    } | changes
    np.savez(
        folder / FILES[split][part], **{key: value for key, value in arrays.items() if value is not None}
    )


@needs_files
def test_the_splits_have_their_published_counts_and_share_no_class() -> None:
    names: dict[str, list[str]] = {split: [] for split in FILES}
    for split, files in FILES.items():
        for file in files:
            with np.load(DATA / file) as archive:
                names[split] += archive["class_names"].tolist()
                assert (np.bincount(archive["labels"]) == 600).all()
    assert {split: len(found) for split, found in names.items()} == {"train": 64, "val": 16, "test": 20}
    assert len({name for found in names.values() for name in found}) == 100
    data = load_dataset("miniimagenet", "val", DATA)
    assert data.class_names == tuple(names["val"])
    assert all(images.shape == (600, 84, 84, 3) for images in data.classes)


def test_a_class_gets_its_own_images_in_their_order_from_all_files_of_a_split(tmp_path: Path) -> None:
    write_file(tmp_path, "train", 0)
    write_file(tmp_path, "train", 1)
    data = load_dataset("miniimagenet", "train", tmp_path)
    assert data.class_names == ("train 0 first", "train 0 second", "train 1 first", "train 1 second")
    brightness = [[round(float(image.mean())) for image in images] for images in data.classes]
    np.testing.assert_allclose(brightness, [[10, 110], [60, 160], [10, 110], [60, 160]], atol=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "cannot be read .* again"),
        ({"labels": np.array([0, 1, 0, 2], np.uint8)}, "expected labels below 2 .* up to 2 and 5 offsets"),
        ({"offsets": np.arange(4)}, "got 4 labels up to 1 and 4 offsets"),
        ({"jpeg_header": np.zeros(2, np.uint8)}, "class test 0 first: an image cannot be decoded"),
    ],
)
def test_another_file_of_that_name_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    write_file(tmp_path, "test", **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        load_dataset("miniimagenet", "test", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"miniimagenet84_val\.npz does not exist; put .* EDGE_ADAPT_DATA"):
        load_dataset("miniimagenet", "val", tmp_path)
