"""Support sets that stay where they are: the same samples and refusals as those that are read whole."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge.errors import SupportError
from edge_adapt.edge.inputs import ArraySpec, ClassLabels, InputSpec, read_support, stream_samples
from edge_adapt.edge.inputs.kinds import Spec
from numpy.typing import NDArray
from PIL import Image

SPEC = InputSpec(3, 12, 10, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
COUNT = 11
LABELS = ClassLabels(5)


def pixels(count: int = COUNT) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *SPEC.pixel_shape), np.uint8)


def folder(home: Path) -> Path:
    """Nine images in three classes, some larger than the input."""
    for number, image in enumerate(pixels(9)):
        place = home / "photos" / f"class{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        large = Image.fromarray(image).resize((31, 17)) if number % 2 else Image.fromarray(image)
        large.save(place / f"{number}.{'png' if number % 4 else 'jpg'}")
    return home / "photos"


def archive(home: Path, images: NDArray[np.generic], compressed: bool = False) -> Path:
    path = home / "support.npz"
    save = np.savez_compressed if compressed else np.savez
    save(path, images=images, labels=np.array(list("cab") * 9)[: len(images)])
    return path


def check_same(path: Path, spec: Spec) -> None:
    whole, streamed = read_support(path, spec), stream_samples(path, spec, LABELS)
    assert len(streamed) == len(whole)
    assert streamed.class_names == whole.class_names
    assert streamed.converted == whole.converted
    assert np.array_equal(streamed.labels, whole.labels)
    for start, count in ((0, 4), (4, 4), (8, len(whole) - 8), (2, 3), (0, 1)):
        expected, got = (np.empty((count, *spec.shape), np.float32) for _ in range(2))
        whole.fill(start, expected)
        streamed.fill(start, got)
        assert np.array_equal(got, expected)
        streamed.part(1, 9).fill(max(0, start - 1), got[:1])
        whole.part(1, 9).fill(max(0, start - 1), expected[:1])
        assert np.array_equal(got, expected)


def test_a_folder_is_streamed_as_it_is_read(tmp_path: Path) -> None:
    check_same(folder(tmp_path), SPEC)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["pixels", "preprocessed", "array", "large"])
def test_an_archive_is_streamed_as_it_is_read(kind: str, compressed: bool, tmp_path: Path) -> None:
    spec: Spec = SPEC
    images: NDArray[np.generic] = pixels()
    rng = np.random.default_rng(1)
    if kind == "preprocessed":
        images = rng.normal(size=(COUNT, *SPEC.shape)).astype(np.float32)
    elif kind != "pixels":
        spec = ArraySpec((3, 40) if kind == "array" else (3, 9000), mean=(0.5,), std=(2.0,))
        images = rng.normal(size=(COUNT, *spec.shape)).astype(np.float32)
    check_same(archive(tmp_path, images, compressed), spec)


def test_grey_pixels_may_come_without_their_channel(tmp_path: Path) -> None:
    spec = InputSpec(1, 12, 10, (0.5,), (0.2,))
    check_same(archive(tmp_path, pixels()[..., 0]), spec)


def test_headers_decide_what_they_can(tmp_path: Path) -> None:
    with pytest.raises(SupportError, match="no such file or folder"):
        stream_samples(tmp_path / "nothing", SPEC, LABELS)
    with pytest.raises(SupportError, match="3 classes, but the model's head has 2 outputs"):
        stream_samples(archive(tmp_path, pixels()), SPEC, ClassLabels(2))
    with pytest.raises(SupportError, match="expected uint8 pixels"):
        stream_samples(archive(tmp_path, pixels()[:, :5]), SPEC, LABELS)
    with pytest.raises(SupportError, match=r"names and labels of its samples take more than 10 B"):
        stream_samples(folder(tmp_path), SPEC, LABELS, 10)
    (tmp_path / "photos" / "class9").mkdir()
    with pytest.raises(SupportError, match="the class folder is empty"):
        stream_samples(tmp_path / "photos", SPEC, LABELS)


def test_a_sample_that_cannot_be_used_is_named_when_it_is_read(tmp_path: Path) -> None:
    images = np.zeros((COUNT, *SPEC.shape), np.float32)
    images[7, 1, 2, 3] = np.nan
    support, out = (
        stream_samples(archive(tmp_path, images), SPEC, LABELS),
        np.empty((6, *SPEC.shape), np.float32),
    )
    support.fill(0, out)
    with pytest.raises(SupportError, match=r"images: sample 7 holds NaN or infinity"):
        support.fill(6, out[:2])
    support = stream_samples(archive(tmp_path, np.asfortranarray(pixels())), SPEC, LABELS)
    with pytest.raises(SupportError, match=r"column-major order; save it with numpy.ascontiguousarray"):
        support.fill(0, out)


def test_a_damaged_archive_and_a_damaged_image_are_named(tmp_path: Path) -> None:
    path = archive(tmp_path, pixels(27))
    raw = bytearray(path.read_bytes())
    raw[6000:6040] = bytes(40)  # behind what the header is read with
    path.write_bytes(raw)
    out = np.empty((27, *SPEC.shape), np.float32)
    with pytest.raises(SupportError, match=r"support.npz, images: sample \d+ cannot be read"):
        stream_samples(path, SPEC, LABELS).fill(0, out)
    photos = folder(tmp_path)
    victim = photos / "class1" / "1.png"
    victim.write_bytes(victim.read_bytes()[:-60])
    support = stream_samples(photos, SPEC, LABELS)
    with pytest.raises(SupportError, match=r"1.png: cannot be decoded"):
        support.fill(0, out[:9])


def test_more_samples_than_there_are_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    support = stream_samples(archive(tmp_path, pixels()), SPEC, LABELS)
    with pytest.raises(ValueError, match="there are 11"):
        support.fill(9, np.empty((3, *SPEC.shape), np.float32))


def test_an_archive_that_ends_early_is_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path, pixels())
    with zipfile.ZipFile(whole) as source:
        arrays = {name: source.read(name) for name in source.namelist()}
    cut = tmp_path / "cut.npz"
    with zipfile.ZipFile(cut, "w") as target:
        target.writestr("labels.npy", arrays["labels.npy"])
        target.writestr("images.npy", io.BytesIO(arrays["images.npy"][:-100]).getvalue())
    with pytest.raises(SupportError, match="announces"):
        stream_samples(cut, SPEC, LABELS)
