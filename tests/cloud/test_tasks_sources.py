"""Data sets by name: Omniglot, the registry, and what it refuses."""

import os
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.tasks import SPLITS, describe_datasets, load_dataset
from edge_adapt.cloud.tasks.omniglot import FILE_NAME, VALIDATION_ALPHABETS
from edge_adapt.edge.inputs import InputSpec

DATA = Path(os.environ.get("EDGE_ADAPT_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_omniglot = pytest.mark.skipif(
    not (DATA / FILE_NAME).is_file(), reason=f"{FILE_NAME} not found: set EDGE_ADAPT_DATA to its folder"
)


@needs_omniglot
def test_omniglot_has_its_standard_counts_and_disjoint_alphabets():
    alphabets, counts = {}, {}
    for split in SPLITS:
        data = load_dataset("omniglot", split, DATA)
        counts[split] = len(data)
        alphabets[split] = {name.split("/")[0] for name in data.class_names}
        assert all(images.shape == (20, 28, 28, 1) for images in data.classes)
    assert counts["train"] + counts["val"] == 964
    assert counts["test"] == 659
    assert alphabets["val"] == set(VALIDATION_ALPHABETS)
    assert [len(alphabets[split]) for split in SPLITS] == [25, 5, 20]
    assert len(set.union(*alphabets.values())) == 50


@needs_omniglot
def test_omniglot_ink_is_white_on_black_and_images_follow_their_names():
    with np.load(DATA / FILE_NAME) as archive:
        names, images = archive["class_names"], archive["images"]
    data = load_dataset("omniglot", "test", DATA)
    assert 0.03 < np.mean([images.mean() for images in data.classes]) / 255 < 0.2
    for name, mine in zip(data.class_names[::50], data.classes[::50], strict=True):
        assert mine.tobytes() == images[names.tolist().index(name)].tobytes()


@needs_omniglot
def test_the_environment_variable_names_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_ADAPT_DATA", str(DATA))
    assert len(load_dataset("omniglot", "test")) == 659
    with pytest.raises(ConfigError, match="does not exist"):
        load_dataset("omniglot", "test", tmp_path)


def test_a_missing_file_says_where_to_put_it(tmp_path):
    with pytest.raises(
        ConfigError, match=r"omniglot28\.npz does not exist; put .* EDGE_ADAPT_DATA"
    ) as caught:
        load_dataset("omniglot", "train", tmp_path)
    assert "\n" not in str(caught.value)


def write_omniglot(folder, **changes):
    """A tiny file of the right form: two background alphabets beside the held-out ones, one evaluation."""
    alphabets = ["Greek", "Latin", *VALIDATION_ALPHABETS, "ULOG"]
    count = len(alphabets)
    arrays = {
        "images": np.zeros((count, 20, 28, 28), np.uint8),
        "class_names": np.array([f"{name}/character01" for name in alphabets]),
        "alphabet_names": np.array(alphabets),
        "class_alphabet": np.arange(count, dtype=np.int8),
        "split_lake": np.array([0] * (count - 1) + [2], np.int8),
    } | changes
    np.savez(folder / FILE_NAME, **{key: value for key, value in arrays.items() if value is not None})


def test_a_file_of_the_right_form_is_split_by_alphabet(tmp_path):
    write_omniglot(tmp_path)
    names = {split: load_dataset("omniglot", split, tmp_path).class_names for split in SPLITS}
    assert names["train"] == ("Greek/character01", "Latin/character01")
    assert names["val"] == tuple(f"{alphabet}/character01" for alphabet in VALIDATION_ALPHABETS)
    assert names["test"] == ("ULOG/character01",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "cannot be read"),
        ({"images": np.zeros((8, 20, 28, 28), np.float32)}, "images: expected uint8"),
        ({"images": np.zeros((8, 20, 105, 105), np.uint8)}, r"got uint8 \(8, 20, 105, 105\)"),
        ({"alphabet_names": np.array(list("abcdefgh"))}, "the background and evaluation alphabets we know"),
        ({"split_lake": np.ones(8, np.int8)}, "the background and evaluation alphabets we know"),
    ],
)
def test_another_file_of_that_name_is_refused(tmp_path, changes, message):
    write_omniglot(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message):
        load_dataset("omniglot", "train", tmp_path)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ConfigError, match=f"{FILE_NAME} cannot be read .* again"):
        load_dataset("omniglot", "train", tmp_path)


def test_every_data_set_has_one_line():
    lines = describe_datasets()
    assert {"glyphs", "omniglot"} <= set(lines)
    assert all(line and "\n" not in line for line in lines.values())


def test_an_unknown_name_and_an_unknown_split_are_refused():
    with pytest.raises(
        ConfigError, match="dataset: 'nothing' is neither a folder nor one of glyphs, omniglot"
    ):
        load_dataset("nothing", "train")
    with pytest.raises(ConfigError, match="split: expected one of train, val, test, got 'dev'"):
        load_dataset("glyphs", "dev")


def test_a_spec_replaces_the_preprocessing_and_must_fit_the_images():
    spec = InputSpec(1, 28, 28, mean=(0.1,), std=(0.3,))
    assert load_dataset("glyphs", "val", spec=spec).spec == spec
    with pytest.raises(ConfigError, match=r"expected uint8 images of shape \(84, 84, 1\)"):
        load_dataset("glyphs", "val", spec=InputSpec(1, 84, 84, mean=(0.0,), std=(1.0,)))
