"""Images decoded when they are asked for: the same pixels as those decoded at the start."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.cloud import TrainedRun, evaluate
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.tasks import CacheConfig, Dataset, EpisodeSampler, load_dataset
from edge_adapt.cloud.tasks.caltech101 import FILE_NAME
from edge_adapt.cloud.tasks.miniimagenet import FILES
from edge_adapt.cloud.tasks.on_demand import OnDemand
from edge_adapt.cloud.tasks.packed import SPEC
from edge_adapt.edge.inputs import InputSpec
from PIL import Image

from .test_tasks_miniimagenet import write_file

STRIPES = InputSpec(1, 16, 16, mean=(0.5,), std=(0.25,))
DATA = Path(os.environ.get("EDGE_ADAPT_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_caltech = pytest.mark.skipif(
    not (DATA / FILE_NAME).is_file(), reason=f"{FILE_NAME} not found: set EDGE_ADAPT_DATA to its folder"
)


def pixels_of(data: Dataset) -> bytes:
    return b"".join(images[np.arange(len(images))].tobytes() for images in data.classes)


def kept(data: Dataset) -> list[bool]:
    """Which images the cache has, class by class."""
    classes = [images for images in data.classes if isinstance(images, OnDemand)]
    return [source.key in images.cache for images in classes for source in images.sources]


def cache_of(folder: Path, images: int, spec: InputSpec = STRIPES) -> CacheConfig:
    return CacheConfig(folder, images * (20 + spec.sample_bytes))


@pytest.mark.parametrize("images", [2, 100])
def test_a_folders_images_are_the_same_through_a_cache_large_or_small(
    images: int, stripes: Path, tmp_path: Path
) -> None:
    at_start = load_dataset(str(stripes), "train", spec=STRIPES)
    cache = cache_of(tmp_path, images)
    on_demand = load_dataset(str(stripes), "train", spec=STRIPES, cache=cache)
    assert on_demand.class_names == at_start.class_names
    assert [images.shape for images in on_demand.classes] == [images.shape for images in at_start.classes]
    for _ in range(2):
        assert pixels_of(on_demand) == pixels_of(at_start)


def test_only_the_images_asked_for_are_decoded_and_kept(stripes: Path, tmp_path: Path) -> None:
    data = load_dataset(str(stripes), "train", spec=STRIPES, cache=cache_of(tmp_path, 100))
    assert kept(data) == [False] * 25
    data.classes[1][np.array([3])]
    assert kept(data) == [number == 5 + 3 for number in range(25)]


def test_a_file_that_was_changed_is_decoded_again(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("L", (16, 16), 10).save(tmp_path / "data" / name / "0.png")
    cache = cache_of(tmp_path / "cache", 10)
    load_dataset(str(tmp_path / "data"), "train", spec=STRIPES, cache=cache).classes[0][np.array([0])]
    (name,) = load_dataset(str(tmp_path / "data"), "train", spec=STRIPES, cache=cache).class_names
    Image.new("L", (16, 16), 200).save(tmp_path / "data" / name / "0.png")
    os.utime(tmp_path / "data" / name / "0.png", ns=(1, 1))
    again = load_dataset(str(tmp_path / "data"), "train", spec=STRIPES, cache=cache)
    assert again.classes[0][np.array([0])].max() == 200


def test_a_bad_file_is_named_at_the_start_or_when_it_is_asked_for(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
        Image.fromarray(noise).save(tmp_path / name / "0.png")
    cache = cache_of(tmp_path / ".cache", 10)
    whole = (tmp_path / "a" / "0.png").read_bytes()
    for split in ("train", "val", "test"):
        name = load_dataset(str(tmp_path), split, spec=STRIPES).class_names[0]
        (tmp_path / name / "0.png").write_bytes(whole[:-1000])
    data = load_dataset(str(tmp_path), "train", spec=STRIPES, cache=cache)
    with pytest.raises(ConfigError, match=r"dataset: .*0\.png: cannot be decoded"):
        data.classes[0][np.array([0])]
    (tmp_path / data.class_names[0] / "0.png").write_text("no image")
    with pytest.raises(ConfigError, match=r"dataset: .*0\.png: not an image"):
        load_dataset(str(tmp_path), "train", spec=STRIPES, cache=cache)


def test_a_support_set_larger_than_the_cache_is_refused(stripes: Path, tmp_path: Path) -> None:
    data = load_dataset(str(stripes), "train", spec=STRIPES, cache=cache_of(tmp_path, 5))
    assert EpisodeSampler(data, ways=5, shots=1, queries=4, seed=0).batch(0, 1).support_x.shape[1] == 5
    with pytest.raises(
        ConfigError, match=r"data\.cache_size: the cache holds 5 images of .* support set has 3 x 2 = 6"
    ):
        EpisodeSampler(data, ways=3, shots=2, queries=1, seed=0)


def test_packed_images_are_the_same_through_a_cache_and_may_be_enlarged(tmp_path: Path) -> None:
    write_file(tmp_path, "test")
    at_start = load_dataset("miniimagenet", "test", tmp_path)
    on_demand = load_dataset("miniimagenet", "test", tmp_path, cache=cache_of(tmp_path, 10, SPEC))
    assert pixels_of(on_demand) == pixels_of(at_start)
    large = InputSpec(3, 100, 100, SPEC.mean, SPEC.std, "bilinear")
    enlarged = load_dataset("miniimagenet", "test", tmp_path, large, cache_of(tmp_path, 10, large))
    with np.load(tmp_path / FILES["test"][0]) as archive:
        scan = archive["jpeg_data"][: archive["offsets"][1]].tobytes()
    (tmp_path / "first.jpg").write_bytes(b"\xff\xd8" + scan)
    with Image.open(tmp_path / "first.jpg") as image:
        expected = np.asarray(image.convert("RGB").resize((100, 100), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(enlarged.classes[0][np.array([0])][0], expected)
    assert pixels_of(load_dataset("miniimagenet", "test", tmp_path, large)) == pixels_of(enlarged)


@needs_caltech
def test_caltech101_tests_90_classes_that_are_unlike_mini_imagenets(tmp_path: Path) -> None:
    data = load_dataset("caltech101", "test", DATA, cache=CacheConfig(tmp_path, 10**6))
    assert len(data) == len(set(data.class_names)) == 90
    assert {"ant", "barrel"}.isdisjoint(data.class_names)
    assert "accordion" in data.class_names
    sizes = [len(images) for images in data.classes]
    assert (min(sizes), max(sizes)) == (31, 64)
    with pytest.raises(
        ConfigError, match=r"data\.name: caltech101 is for tests alone, it has no train split"
    ):
        load_dataset("caltech101", "train", DATA)


@needs_caltech
def test_a_run_is_tested_on_caltech101_at_the_size_it_was_trained_at(finished: TrainedRun) -> None:
    score = evaluate(finished, f"caltech101={DATA}", tasks=2)
    assert score.tasks == 2
    assert 0 <= score.accuracy <= 1


def test_another_folder_is_evaluated_through_the_cache_of_the_run(
    finished: TrainedRun, stripes: Path, tmp_path: Path
) -> None:
    data = replace(finished.config.data, cache_size="20kB", cache=str(tmp_path / "cache"))
    cached = replace(finished, config=replace(finished.config, data=data))
    assert evaluate(cached, f"folder={stripes}", tasks=4) == evaluate(finished, tasks=4)
    assert list((tmp_path / "cache").iterdir())
