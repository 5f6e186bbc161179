"""A user's folder of images as a data set."""

import numpy as np
import pytest
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.tasks import SPLITS, load_dataset
from edge_adapt.cloud.tasks.folder import split_names
from edge_adapt.edge.inputs import InputSpec, read_support
from PIL import Image

SPEC = InputSpec(3, 8, 10, mean=(0.5,) * 3, std=(0.5,) * 3)


def write_classes(folder, names, count=3):
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for sample in range(count):
            values = np.random.default_rng([number, sample]).integers(0, 256, (16, 20), np.uint8)
            Image.fromarray(values).save(folder / name / f"{sample}.png")


def test_classes_are_shared_out_by_name_and_none_twice(tmp_path):
    names = [f"class{index:02}" for index in range(20)]
    write_classes(tmp_path, names, 1)
    parts = {split: load_dataset(str(tmp_path), split, spec=SPEC).class_names for split in SPLITS}
    assert sorted(sum(parts.values(), ())) == names
    assert [len(parts[split]) for split in SPLITS] == [14, 3, 3]
    assert all(list(part) == sorted(part) for part in parts.values())
    assert parts["train"] != tuple(names[:14])


def test_the_shares_do_not_depend_on_the_order_of_the_names(tmp_path):
    names = [f"class{index:02}" for index in range(20)]
    assert split_names(names, tmp_path) == split_names(names[::-1], tmp_path)


def test_three_classes_make_three_splits_and_two_are_refused(tmp_path):
    assert [len(part) for part in split_names(["a", "b", "c"], tmp_path).values()] == [1, 1, 1]
    with pytest.raises(ConfigError, match="has 2 classes; three splits need at least 3"):
        split_names(["a", "b"], tmp_path)


def test_train_val_and_test_folders_are_the_splits(tmp_path):
    for split, names in (("train", "abc"), ("val", "de"), ("test", "f")):
        write_classes(tmp_path / split, names)
    for split, names in (("train", "abc"), ("val", "de"), ("test", "f")):
        data = load_dataset(str(tmp_path), split, spec=SPEC)
        assert (data.class_names, data.split) == (tuple(names), split)
        assert [images.shape for images in data.classes] == [(3, 8, 10, 3)] * len(names)


def test_training_reads_the_bytes_that_the_device_reads(tmp_path):
    for split in SPLITS:
        write_classes(tmp_path / split, "ab")
    data = load_dataset(str(tmp_path), "train", spec=SPEC)
    support = read_support(tmp_path / "train", SPEC)
    assert np.concatenate(data.classes).tobytes() == support.images.tobytes()
    assert data.class_names == support.class_names


def test_a_missing_split_is_named(tmp_path):
    write_classes(tmp_path / "train", "ab")
    with pytest.raises(ConfigError, match="has train but no val/"):
        load_dataset(str(tmp_path), "val", spec=SPEC)


def test_a_folder_needs_a_spec(tmp_path):
    with pytest.raises(ConfigError, match="needs an input spec"):
        load_dataset(str(tmp_path), "train")


def test_a_file_that_is_no_image_and_an_empty_class_are_named(tmp_path):
    write_classes(tmp_path / "train", "ab")
    (tmp_path / "train" / "a" / "bad.png").write_text("no image")
    with pytest.raises(ConfigError, match=r"dataset: .*bad\.png: not an image"):
        load_dataset(str(tmp_path), "train", spec=SPEC)
    (tmp_path / "train" / "c").mkdir()
    with pytest.raises(ConfigError, match=r"dataset: .*c: the class folder is empty"):
        load_dataset(str(tmp_path), "train", spec=SPEC)
