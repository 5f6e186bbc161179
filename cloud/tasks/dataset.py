"""A data set split in memory: classes of uint8 images and the input spec they fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...edge.inputs import InputSpec

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """One split of a data set.

    Attributes:
        name: as given to `load_dataset`.
        split: "train", "val" or "test".
        classes: per class, uint8 (n_i, H, W, C).
        class_names: per class, "group/name" where the data set has groups (alphabets, scripts).
        spec: shape and preprocessing of a sample.
    """

    name: str
    split: str
    classes: tuple[NDArray[np.uint8], ...]
    class_names: tuple[str, ...]
    spec: InputSpec

    def __len__(self) -> int:
        return len(self.classes)
