"""Images of a class, and picks of them: nothing is read before its pixels are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...edge.inputs import InputSpec
from .distortion import Motion, move

Rows = NDArray[np.int64]
Pixels = NDArray[np.uint8]


class Images(Protocol):
    """The images of one class, read when they are indexed. A uint8 array (n, H, W, C) is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, H, W, C)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Rows, /) -> Pixels:
        """Return these images, uint8 (rows, H, W, C)."""


@dataclass(frozen=True)
class Turned:
    """A class of square images, all turned by a number of quarters."""

    images: Images
    quarters: int

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Images`."""
        return self.images.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Images`."""
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Rows) -> Pixels:
        return np.rot90(self.images[rows], self.quarters, axes=(1, 2))


@dataclass(frozen=True)
class Picked:
    """n images of several classes: samples of a task (see `task.Samples`).

    Attributes:
        classes: the images that the picks are from.
        kinds: int64 (n,), which class each pick is of.
        rows: int64 (n,), which image of the class.
        spec: preprocessing.
        motion: how the picks are moved; None: they are not.
    """

    classes: Sequence[Images]
    kinds: Rows
    rows: Rows
    spec: InputSpec
    motion: Motion | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Rows) -> Picked:
        """Some of the picks."""
        motion = None if self.motion is None else self.motion[chosen]
        return Picked(self.classes, self.kinds[chosen], self.rows[chosen], self.spec, motion)

    def pixels(self) -> Pixels:
        """Read all of them, uint8 (n, H, W, C)."""
        images = np.empty((len(self), *self.spec.pixel_shape), np.uint8)
        for kind in np.unique(self.kinds):
            here = np.flatnonzero(self.kinds == kind)
            images[here] = self.classes[kind][self.rows[here]]
        return images if self.motion is None else move(images, self.motion)

    def take(self, rows: Tensor) -> Tensor:
        """See `task.Samples.take`."""
        return torch.from_numpy(self.spec.preprocess(self[rows.numpy()].pixels()))
