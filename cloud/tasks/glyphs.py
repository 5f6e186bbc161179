"""The built-in data set: distorted characters of the DejaVu fonts, split by script; no download."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ...edge.inputs import InputSpec
from .characters import Character, distinct_characters
from .dataset import Dataset
from .distortion import Distortion, distort

SPEC = InputSpec(channels=1, height=28, width=28, mean=(0.18,), std=(0.36,))
SAMPLES_PER_CLASS = 24
_BLUR = 1.5
_LEVEL = np.float32(0.8)
_DISTORTION = Distortion()


@lru_cache(maxsize=8)
def load_glyphs(split: str, seed: int = 0) -> Dataset:
    """Generate one split: uint8 (24, 28, 28, 1) per class, ink 255 on 0, kept in memory.

    A class's samples depend on the seed and its code point alone.
    """
    characters = distinct_characters()[split]
    classes = tuple(_samples(character, seed) for character in characters)
    return Dataset("glyphs", split, classes, tuple(character.name for character in characters), SPEC)


def _samples(character: Character, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([seed, character.code])
    sources = np.stack([_softened(raster) for raster in character.rasters])
    images = distort(sources, SAMPLES_PER_CLASS, SPEC.height, _DISTORTION, rng)
    images.setflags(write=False)
    return images[..., np.newaxis]


def _softened(raster: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Blur a raster so that a threshold moves its edges: the strokes get thicker or thinner.

    Thin strokes are brightened to the level of thick ones, or a high threshold would wipe them out.
    """
    blurred = np.asarray(Image.fromarray(raster).filter(ImageFilter.GaussianBlur(_BLUR)), np.float32)
    inside = np.float32(np.median(blurred[raster > 127]))
    values: NDArray[np.float32] = np.minimum(blurred * (_LEVEL / inside), np.float32(1))
    return values
