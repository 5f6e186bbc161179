"""Distorted variants of a shape."""

import numpy as np
import pytest
from edge_adapt.cloud.tasks.distortion import Distortion, distort, draw_motion, move

STILL = Distortion(rotation=0, shear=0, scale=0, shift=0, elastic=0, stroke=(0.5, 0.5))
SIDE = 32


def cross(side=SIDE):
    """A soft-edged, lopsided cross."""
    image = np.zeros((side, side), np.float32)
    image[6:26, 12:16] = 1
    image[10:14, 6:24] = 1
    return image[None]


def draw(how, count=200, seed=0, sources=None):
    return distort(cross() if sources is None else sources, count, SIDE, how, np.random.default_rng(seed))


def moments(images):
    """Ink, centre (y, x) and the direction of the long axis of each image."""
    weights = images / 255
    ink = weights.sum(axis=(1, 2))
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    centre = np.stack([(weights * axis).sum(axis=(1, 2)) / ink for axis in (y, x)], axis=1)
    return ink, centre


def test_no_distortion_gives_the_thresholded_source():
    assert (draw(STILL, 3) == np.rint(255 * cross()).astype(np.uint8)).all()


def test_the_same_generator_state_gives_the_same_bytes_and_another_does_not():
    assert draw(Distortion(), 5).tobytes() == draw(Distortion(), 5).tobytes()
    assert draw(Distortion(), 5).tobytes() != draw(Distortion(), 5, seed=1).tobytes()


def test_all_variants_differ():
    assert len({image.tobytes() for image in draw(Distortion())}) == 200


def test_shift_moves_the_centre_by_its_standard_deviation():
    how = Distortion(rotation=0, shear=0, scale=0, shift=0.04, elastic=0, stroke=(0.5, 0.5))
    _, centre = moments(draw(how, 2000))
    assert centre.std(axis=0) == pytest.approx([0.04 * SIDE] * 2, rel=0.1)


def test_scale_changes_the_ink_by_twice_the_logarithm():
    how = Distortion(rotation=0, shear=0, scale=0.1, shift=0, elastic=0, stroke=(0.5, 0.5))
    ink, _ = moments(draw(how, 2000))
    assert np.log(ink).std() == pytest.approx(0.1 * np.sqrt(2), rel=0.15)


def test_a_lower_threshold_makes_thicker_strokes():
    soft = (cross() + np.roll(cross(), 1, 1) + np.roll(cross(), 1, 2) + np.roll(cross(), (1, 1), (1, 2))) / 4
    inks = []
    for threshold in (0.25, 0.4, 0.55):
        how = Distortion(rotation=0, shear=0, scale=0, shift=0, elastic=0, stroke=(threshold, threshold))
        inks.append(moments(draw(how, 1, sources=soft))[0][0])
    assert inks[0] > inks[1] > inks[2]


def test_every_source_is_used():
    sources = np.stack([np.zeros((SIDE, SIDE), np.float32), np.ones((SIDE, SIDE), np.float32)])
    assert set(np.unique(draw(Distortion(), 50, sources=sources))) == {0, 255}


def colour_crosses(count):
    """Crosses in three brightnesses, uint8 (count, S, S, 3)."""
    plane = np.rint(200 * cross()[0]).astype(np.uint8)
    return np.tile(np.stack([plane, plane // 2, 0 * plane], axis=-1), (count, 1, 1, 1))


def moved_by(how, images):
    return move(images, draw_motion(len(images), how, np.random.default_rng(0)))


def test_motion_of_no_strength_leaves_the_images_as_they_are():
    images = colour_crosses(3)
    assert (moved_by(Distortion().times(0), images) == images).all()


def test_motion_moves_every_image_in_its_own_way_and_all_its_colours_together():
    moved = moved_by(Distortion(), colour_crosses(20))
    assert moved.dtype == np.uint8
    assert len({image.tobytes() for image in moved}) == 20
    assert np.abs(moved[..., 0].astype(int) - 2 * moved[..., 1]).max() <= 2
    assert not moved[..., 2].any()


def test_twice_the_strength_shifts_twice_as_far():
    far = []
    for strength in (1, 2):
        how = Distortion(rotation=0, shear=0, scale=0, shift=0.03, elastic=0).times(strength)
        _, centre = moments(moved_by(how, colour_crosses(300))[..., 0])
        far.append(centre.std(axis=0).mean())
    assert far[1] / far[0] == pytest.approx(2, rel=0.1)
    assert far[0] == pytest.approx(0.03 * SIDE, rel=0.15)


def test_some_of_the_images_move_as_they_do_among_all() -> None:
    images, rows = colour_crosses(6), np.array([4, 1])
    motion = draw_motion(6, Distortion(), np.random.default_rng(3))
    assert (move(images[rows], motion[rows]) == move(images, motion)[rows]).all()
