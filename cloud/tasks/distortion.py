"""Make variants of a shape or an image: affine and elastic motion; for clean shapes thicker or thinner strokes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_KNOTS = 5


@dataclass(frozen=True)
class Distortion:
    """How far a variant may be from its source; lengths are shares of the source's side.

    Attributes:
        rotation: standard deviation, radians.
        shear: standard deviation.
        scale: standard deviation of the logarithm of the scale, drawn per axis.
        shift: standard deviation of the translation.
        elastic: standard deviation of the displacement at each of 5x5 knots, cubic in between.
        stroke: (lowest, highest) ink threshold, drawn between them; a low one makes thick strokes.
    """

    rotation: float = 0.12
    shear: float = 0.14
    scale: float = 0.10
    shift: float = 0.035
    elastic: float = 0.035
    stroke: tuple[float, float] = (0.25, 0.55)

    def times(self, strength: float) -> Distortion:
        """The same motion, `strength` times as far."""
        names = ("rotation", "shear", "scale", "shift", "elastic")
        return replace(self, **{name: strength * getattr(self, name) for name in names})


@dataclass(frozen=True)
class Motion:
    """How each of n images is moved; a few numbers each, so that it can be drawn long before the images are read.

    Attributes:
        linear: float (n, 2, 2), rotation, shear and scale.
        shift: float (n, 2, 1).
        knots: float (n, 2, 5, 5), elastic displacements.
    """

    linear: NDArray[np.float64]
    shift: NDArray[np.float64]
    knots: NDArray[np.float64]

    def __getitem__(self, rows: NDArray[np.int64]) -> Motion:
        return Motion(self.linear[rows], self.shift[rows], self.knots[rows])

    def positions(self, side: int) -> NDArray[np.float64]:
        """Return where each pixel of each image comes from: (n, 2, side, side), y and x from -.5 to .5."""
        axis = (np.arange(side) + 0.5) / side - 0.5
        grid = np.stack(np.meshgrid(axis, axis, indexing="ij")).reshape(2, -1)
        moved = (self.linear @ grid + self.shift).reshape(-1, 2, side, side)
        basis = _cubic_basis(side)
        positions: NDArray[np.float64] = moved + basis @ self.knots @ basis.T
        return positions


def draw_motion(count: int, how: Distortion, rng: np.random.Generator) -> Motion:
    """Draw the motion of `count` images; `rng` is the only source of chance."""
    linear = _linear(count, how, rng)
    shift = rng.normal(0, how.shift, (count, 2, 1))
    return Motion(linear, shift, rng.normal(0, how.elastic, (count, 2, _KNOTS, _KNOTS)))


def move(images: NDArray[np.uint8], motion: Motion) -> NDArray[np.uint8]:
    """Move every image, uint8 (n, S, S, C), in its own way.

    Strokes keep their thickness, the outside repeats the border.
    """
    positions = motion.positions(images.shape[1])
    planes = [_sample(images[..., c].astype(np.float32), positions) for c in range(images.shape[3])]
    return np.rint(np.stack(planes, axis=3)).astype(np.uint8)


def distort(
    sources: NDArray[np.float32], count: int, side: int, how: Distortion, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw `count` variants of one class.

    Args:
        sources: (k, S, S), soft-edged shapes from 0 to 1; each variant starts from one of them.
        count: variants.
        side: pixels of a variant's side.
        how: strength.
        rng: the only source of chance.

    Returns:
        uint8 (count, side, side), ink 255 on 0.
    """
    chosen = sources[rng.integers(len(sources), size=count)]
    sampled = _sample(chosen, draw_motion(count, how, rng).positions(side))
    threshold = rng.uniform(*how.stroke, (count, 1, 1))
    ink = np.clip((sampled - threshold) * 3 + 0.5, 0, 1)
    return np.rint(255 * ink).astype(np.uint8)


def _linear(count: int, how: Distortion, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return (count, 2, 2): rotation, then shear, then a scale per axis."""
    angle, shear = rng.normal(0, how.rotation, count), rng.normal(0, how.shear, count)
    scale = np.exp(rng.normal(0, how.scale, (count, 2, 1)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    slant = np.tile(np.eye(2), (count, 1, 1))
    slant[:, 1, 0] = shear
    combined: NDArray[np.float64] = scale * (slant @ turn)
    return combined


def _cubic_basis(side: int) -> NDArray[np.float64]:
    """Return (side, knots): uniform cubic B-spline weights, whose rows sum to 1 inside the knots."""
    place = np.linspace(1, _KNOTS - 2, side)[:, None] - np.arange(_KNOTS)
    distance = np.abs(place)
    inner = (4 - 6 * distance**2 + 3 * distance**3) / 6
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    weights: NDArray[np.float64] = np.where(distance < 1, inner, outer)
    return weights


def _sample(images: NDArray[np.float32], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read images (count, S, S) bilinearly at positions (count, 2, h, w); the outside repeats the border."""
    size = images.shape[-1]
    place = np.clip((positions + 0.5) * size - 0.5, 0, size - 1.001)
    corner = place.astype(np.intp)
    down, right = (place - corner).transpose(1, 0, 2, 3)
    flat = images.reshape(-1)
    first = np.arange(len(images))[:, None, None] * size * size + corner[:, 0] * size + corner[:, 1]
    top = flat[first] * (1 - right) + flat[first + 1] * right
    bottom = flat[first + size] * (1 - right) + flat[first + size + 1] * right
    mixed: NDArray[np.float64] = top * (1 - down) + bottom * down
    return mixed
