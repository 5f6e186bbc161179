"""The images of a pre-training: what is held out, the order of an epoch, random crops."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from ..tasks import Dataset
from ..tasks.images import Picked
from .settings import Pretraining

ASPECTS = (3 / 4, 4 / 3)
"""Of a crop, width by height (Szegedy et al., CVPR 2015)."""


@dataclass(frozen=True)
class Split:
    """Rows of a data set: class and place in the class, int64 (n, 2)."""

    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def split(dataset: Dataset, held_out: float, seed: int) -> tuple[Split, Split]:
    """What is learned and what is held out: of every class at least one image each.

    Raises:
        ConfigError: a class has one image only.
    """
    rng = np.random.default_rng([seed, 0])
    learned, held = [], []
    for number, images in enumerate(dataset.classes):
        if len(images) < 2:
            raise ConfigError(
                f"class {dataset.class_names[number]}: expected 2 images or more, got {len(images)}"
            )
        order = rng.permutation(len(images))
        count = min(max(1, round(held_out * len(images))), len(images) - 1)
        rows = np.stack([np.full(len(images), number), order], axis=1)
        held.append(rows[:count])
        learned.append(rows[count:])
    return Split(np.concatenate(learned)), Split(np.concatenate(held))


def order_of(learned: Split, seed: int, epoch: int) -> NDArray[np.int64]:
    """The epoch's rows of `learned`, shuffled."""
    return learned.rows[np.random.default_rng([seed, 1, epoch]).permutation(len(learned))]


def load(dataset: Dataset, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Preprocessed images float32 (n, C, H, W) and class numbers int64 (n,)."""
    picked = Picked(dataset.classes, rows[:, 0], rows[:, 1], dataset.spec)
    return torch.from_numpy(dataset.spec.preprocess(picked.pixels())), torch.from_numpy(rows[:, 0].copy())


def resized(images: Tensor, size: int) -> Tensor:
    """Whole images at size x size pixels, (n, C, size, size)."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def crops(images: Tensor, size: int, settings: Pretraining, rng: np.random.Generator) -> Tensor:
    """Random crops of random shape, enlarged to size x size pixels, half of them mirrored: (n, C, size, size)."""
    count = len(images)
    area = rng.uniform(settings.smallest_crop, 1, count)
    aspect = np.exp(rng.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1]), count))
    if settings.smallest_crop == 1:
        aspect = np.ones(count)
    share = np.minimum(np.sqrt(np.stack([area * aspect, area / aspect])), 1)  # of width and of height
    centre = rng.uniform(share - 1, 1 - share)
    turn = np.where(rng.random(count) < 0.5, -1.0, 1.0) if settings.mirror else np.ones(count)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1] = share[0] * turn, share[1]
    theta[:, :, 2] = centre.T
    grid = F.affine_grid(torch.from_numpy(theta), [count, images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
