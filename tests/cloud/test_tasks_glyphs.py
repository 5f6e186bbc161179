"""The built-in data set."""

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
from edge_adapt.cloud.tasks import SPLITS, EpisodeSampler, load_dataset
from edge_adapt.cloud.tasks.characters import distinct_characters
from edge_adapt.cloud.tasks.glyphs import load_glyphs


def digest(data):
    names = "".join(data.class_names).encode()
    return hashlib.sha256(names + b"".join(images.tobytes() for images in data.classes)).hexdigest()


def val_digest():
    return digest(load_dataset("glyphs", "val"))


@pytest.mark.parametrize("split", SPLITS)
def test_a_class_is_twenty_or_more_grey_28_pixel_samples_of_one_character(split):
    data = load_dataset("glyphs", split)
    assert len(data) == len(distinct_characters()[split])
    assert len(set(data.class_names)) == len(data)
    for images in data.classes:
        assert len(images) >= 20
        assert (images.dtype, images.shape[1:]) == (np.uint8, (28, 28, 1))


@pytest.mark.parametrize("split", SPLITS)
def test_samples_are_white_ink_on_black_and_never_nearly_blank(split):
    images = np.concatenate(load_dataset("glyphs", split).classes)
    ink = images.mean(axis=(1, 2, 3)) / 255
    assert ink.min() > 0.01
    assert 0.08 < np.median(ink) < 0.3
    border = np.concatenate([images[:, [0, -1]].ravel(), images[:, :, [0, -1]].ravel()])
    assert (border > 127).mean() < 0.05


def test_no_two_samples_are_the_same_bytes():
    samples = [sample.tobytes() for split in SPLITS for c in load_glyphs(split).classes for sample in c]
    assert len(set(samples)) == len(samples) >= 20000


def test_another_process_makes_the_same_bytes():
    program = f"import runpy; names = runpy.run_path({__file__!r}); print(names['val_digest']())"
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout
    assert printed.strip() == val_digest()


def test_a_seed_gives_the_same_samples_again_and_another_seed_others():
    first = load_glyphs("val", seed=3)
    load_glyphs.cache_clear()
    assert digest(load_glyphs("val", seed=3)) == digest(first)
    other = load_glyphs("val", seed=4)
    assert other.class_names == first.class_names
    assert all((a != b).any() for a, b in zip(first.classes, other.classes, strict=True))


def test_samples_cannot_be_written_to_by_accident():
    with pytest.raises(ValueError, match="read-only"):
        load_dataset("glyphs", "val").classes[0][0, 0, 0, 0] = 1


def test_everything_is_generated_within_half_a_minute():
    distinct_characters.cache_clear()
    load_glyphs.cache_clear()
    start = time.process_time()
    for split in SPLITS:
        load_glyphs(split)
    assert time.process_time() - start < 30


def test_one_shot_by_pixels_is_hard_but_far_above_chance():
    """A nearest-pixel guess among 5 classes of unseen scripts: neither hopeless nor already solved."""
    batch = EpisodeSampler(load_dataset("glyphs", "test"), ways=5, shots=1, queries=5, seed=0).batch(0, 100)
    support = batch.support_x.reshape(100, 1, 5, -1)
    distance = ((batch.query_x.reshape(100, 25, 1, -1) - support) ** 2).sum(axis=-1)
    assert 0.45 < (distance.argmin(axis=-1) == batch.query_y).mean() < 0.75
