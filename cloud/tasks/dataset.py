"""A data set split: classes of uint8 images, in memory or read on demand, and the input spec they fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...edge.inputs import InputSpec
from ..errors import ConfigError
from .images import Images
from .on_demand import OnDemand

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """One split of a data set.

    Attributes:
        name: as given to `load_dataset`.
        split: "train", "val" or "test".
        classes: per class, uint8 (n_i, H, W, C); an array, or what reads images when it is indexed.
        class_names: per class, "group/name" where the data set has groups (alphabets, scripts).
        spec: shape and preprocessing of a sample.

    Raises:
        ConfigError: classes and names that differ in number, or images the spec does not fit.
    """

    name: str
    split: str
    classes: tuple[Images, ...]
    class_names: tuple[str, ...]
    spec: InputSpec

    def __post_init__(self) -> None:
        if not self.classes or len(self.classes) != len(self.class_names):
            raise ConfigError(
                f"{self.name} {self.split}: expected one name per class and at least one class, "
                f"got {len(self.classes)} classes and {len(self.class_names)} names"
            )
        for images, name in zip(self.classes, self.class_names, strict=True):
            if images.dtype != np.uint8 or images.shape[1:] != self.spec.pixel_shape:
                raise ConfigError(
                    f"{self.name} {self.split}, class {name}: expected uint8 images of shape "
                    f"{self.spec.pixel_shape} (input), got {images.dtype} {images.shape[1:]}"
                )

    @property
    def kept_at_once(self) -> int | None:
        """Images that the disk cache holds; None where all are in memory."""
        caches = [images.cache.slots for images in self.classes if isinstance(images, OnDemand)]
        return min(caches, default=None)

    def __len__(self) -> int:
        return len(self.classes)
