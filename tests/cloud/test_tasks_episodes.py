"""Episode sampling."""

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.tasks import Dataset, EpisodeSampler
from edge_adapt.edge.inputs import InputSpec, from_arrays

SPEC = InputSpec(1, 4, 4, mean=(0.3,), std=(0.7,))


def dataset(sizes=(9, 7, 8, 10, 7, 12), split="train", spec=SPEC):
    """Each image says who it is: its class and number in row 1, a white top left corner."""
    classes = []
    for index, size in enumerate(sizes):
        images = np.zeros((size, *spec.pixel_shape), np.uint8)
        images[:, 1, 0], images[:, 1, 1, 0] = 10 + index, 10 + np.arange(size)
        images[:, 0, 0] = 255
        classes.append(images)
    return Dataset("toy", split, tuple(classes), tuple("abcdefgh"[: len(sizes)]), spec)


def sampler(data=None, **changes):
    settings = {"ways": 3, "shots": 2, "queries": 4, "seed": 5} | changes
    return EpisodeSampler(data or dataset(), **settings)


def identities(images):
    return [(int(image[1, 0, 0]), int(image[1, 1, 0])) for image in images]


def test_an_episode_has_its_shapes_types_and_labels_grouped_by_class():
    episode = sampler().episode(0)
    assert episode.support_x.shape == (6, 4, 4, 1)
    assert episode.query_x.shape == (12, 4, 4, 1)
    assert episode.support_x.dtype == episode.query_x.dtype == np.uint8
    assert episode.support_y.tolist() == [0, 0, 1, 1, 2, 2]
    assert episode.query_y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert episode.support_y.dtype == episode.query_y.dtype == np.int64


def test_classes_are_distinct_and_no_query_is_in_the_support_set():
    draws = sampler()
    for index in range(200):
        episode = draws.episode(index)
        support, query = identities(episode.support_x), identities(episode.query_x)
        assert len(set(support + query)) == 18
        drawn = [support[2 * way][0] for way in range(3)]
        assert len(set(drawn)) == 3
        assert [identity[0] for identity in support] == [drawn[y] for y in episode.support_y]
        assert [identity[0] for identity in query] == [drawn[y] for y in episode.query_y]


def test_every_class_sample_and_label_is_drawn_about_equally_often():
    draws, counts = sampler(), np.zeros((6, 3))
    for index in range(2000):
        support = identities(draws.episode(index).support_x)
        for way in range(3):
            counts[support[2 * way][0] - 10, way] += 1
    assert np.abs(counts / 2000 - 1 / 6).max() < 5 * np.sqrt(1 / 6 * 5 / 6 / 2000)


def test_an_episode_depends_on_the_seed_and_its_index_alone():
    first, second = sampler(), sampler()
    for index in (7, 3, 7):
        second.episode(index)
    assert identities(first.episode(3).support_x) == identities(second.episode(3).support_x)
    assert identities(first.episode(3).support_x) != identities(first.episode(4).support_x)
    assert identities(first.episode(3).support_x) != identities(sampler(seed=6).episode(3).support_x)


def toy_digest():
    values = np.arange(6 * 10 * 16, dtype=np.uint8).reshape(6, 10, 4, 4, 1)
    data = Dataset("toy", "train", tuple(values), tuple("abcdef"), SPEC)
    batch = EpisodeSampler(data, ways=5, shots=1, queries=3, seed=11, rotations=True).batch(40, 6)
    return hashlib.sha256(batch.support_x.tobytes() + batch.query_x.tobytes()).hexdigest()


def test_another_process_draws_the_same_episodes():
    program = f"import runpy; print(runpy.run_path({__file__!r})['toy_digest']())"
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout
    assert printed.strip() == toy_digest()


@pytest.mark.parametrize("rotations", [False, True])
def test_a_batch_is_its_episodes_preprocessed_and_stacked(rotations):
    draws = sampler(rotations=rotations)
    batch = draws.batch(10, 3)
    assert batch.support_x.shape == (3, 6, 1, 4, 4)
    assert batch.query_x.shape == (3, 12, 1, 4, 4)
    for task in range(3):
        episode = draws.episode(10 + task)
        assert batch.support_x[task].tobytes() == SPEC.preprocess(episode.support_x).tobytes()
        assert batch.query_x[task].tobytes() == SPEC.preprocess(episode.query_x).tobytes()
        assert batch.support_y[task].tolist() == episode.support_y.tolist()
        assert batch.query_y[task].tolist() == episode.query_y.tolist()


def test_the_device_sees_the_bytes_that_training_saw():
    draws = sampler()
    episode, batch = draws.episode(2), draws.batch(2, 1)
    support = from_arrays(episode.support_x, episode.support_y, SPEC)
    for start in range(6):
        arena = np.empty((1, 1, 4, 4), np.float32)
        support.fill(start, arena)
        assert arena.tobytes() == batch.support_x[0, start : start + 1].tobytes()


def test_batches_may_be_cut_anywhere():
    draws = sampler()
    whole = draws.batch(0, 8)
    parts = [draws.batch(first, count) for first, count in ((0, 3), (3, 1), (4, 4))]
    assert np.concatenate([part.query_x for part in parts]).tobytes() == whole.query_x.tobytes()


def test_rotations_add_the_three_turned_copies_of_every_class():
    turned = EpisodeSampler(dataset((8, 8)), ways=8, shots=2, queries=4, seed=0, rotations=True)
    corners = {(0, 0): 0, (3, 0): 1, (3, 3): 2, (0, 3): 3}
    seen = set()
    for image in turned.episode(0).support_x[::2, :, :, 0]:
        (corner,) = [place for place in corners if image[place] == 255]
        upright = np.rot90(image, -corners[corner])
        seen.add((corners[corner], int(upright[1, 0])))
    assert seen == {(turns, 10 + index) for turns in range(4) for index in range(2)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 1}, "ways: expected at least 2, got 1"),
        ({"shots": 0}, "shots: expected at least 1, got 0"),
        ({"queries": 0}, "queries: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"ways": 7}, "task.ways: 7 asked for, but toy train has 6 classes"),
        ({"ways": 25, "rotations": True}, "task.ways: 25 asked for, but toy train has 24 classes"),
        (
            {"shots": 4},
            r"^task\.shots \(or task\.training_shots\) \+ task\.queries \(or task\.training_queries\): 4 \+ 4 asked "
            r"for, but class b of toy train has 7 samples; ask for fewer",
        ),
    ],
)
def test_a_setting_that_does_not_fit_is_named(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        sampler(**changes)
    assert "\n" not in str(caught.value)


def test_rotations_are_for_square_training_images():
    with pytest.raises(ConfigError, match="rotations: only for the train split, not for toy val"):
        sampler(dataset(split="val"), rotations=True)
    flat = InputSpec(1, 4, 6, mean=(0.0,), std=(1.0,))
    with pytest.raises(ConfigError, match="rotations: images of toy train are not square"):
        sampler(dataset(spec=flat), rotations=True)


def test_augmentation_is_for_square_training_images_and_has_a_strength():
    with pytest.raises(ConfigError, match="augmentation: only for the train split, not for toy test"):
        sampler(dataset(split="test"), augmentation=1.0)
    with pytest.raises(ConfigError, match="augmentation: images of toy train are not square"):
        sampler(dataset(spec=InputSpec(1, 4, 6, mean=(0.0,), std=(1.0,))), augmentation=1.0)
    with pytest.raises(ConfigError, match="augmentation: expected at least 0, got -1"):
        sampler(augmentation=-1)


def test_augmented_episodes_are_the_same_draws_moved_and_depend_on_seed_and_index_alone():
    still, moved = sampler(), sampler(augmentation=1.0)
    assert moved.episode(7).query_x.tobytes() == sampler(augmentation=1.0).episode(7).query_x.tobytes()
    assert moved.episode(7).support_x.tobytes() != still.episode(7).support_x.tobytes()
    assert moved.episode(7).support_y.tobytes() == still.episode(7).support_y.tobytes()
    tiny = sampler(augmentation=1e-9)
    assert tiny.episode(7).support_x.tobytes() == still.episode(7).support_x.tobytes()


def test_a_data_set_checks_its_images_and_names():
    images = np.zeros((3, 4, 4, 1), np.uint8)
    with pytest.raises(ConfigError, match="one name per class"):
        Dataset("toy", "train", (images,), ("a", "b"), SPEC)
    with pytest.raises(ConfigError, match="one name per class"):
        Dataset("toy", "train", (), (), SPEC)
    with pytest.raises(ConfigError, match=r"class b: expected uint8 images of shape \(4, 4, 1\)"):
        Dataset("toy", "train", (images, images[:, :3]), ("a", "b"), SPEC)
    with pytest.raises(ConfigError, match=r"class a: expected uint8 .* got float32"):
        Dataset("toy", "train", (images.astype(np.float32),), ("a",), SPEC)


def test_eight_tasks_of_a_hundred_samples_take_milliseconds():
    spec = InputSpec(1, 28, 28, mean=(0.0,), std=(1.0,))
    classes = tuple(np.zeros((100, 20, 28, 28, 1), np.uint8))
    data = Dataset("toy", "train", classes, tuple(str(index) for index in range(100)), spec)
    draws = EpisodeSampler(data, ways=5, shots=5, queries=15, seed=0)
    seconds = []
    for first in range(0, 80, 8):
        start = time.perf_counter()
        draws.batch(first, 8)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05
