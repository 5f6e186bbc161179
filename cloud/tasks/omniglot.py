"""Omniglot (Lake et al., Science 2015): 1623 characters of 50 alphabets, 20 drawings each.

The 30 background alphabets train, five of them held out for validation; the 20 evaluation alphabets test.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...edge.inputs import InputSpec
from ..errors import ConfigError
from .archives import read_archive
from .dataset import Dataset

FILE_NAME = "omniglot28.npz"
SPEC = InputSpec(channels=1, height=28, width=28, mean=(0.08,), std=(0.25,))
VALIDATION_ALPHABETS = ("Balinese", "Early_Aramaic", "Grantha", "Korean", "Tagalog")
_BACKGROUND, _EVALUATION = 0, 2
_KEYS = ("images", "class_names", "alphabet_names", "class_alphabet", "split_lake")


def load_omniglot(split: str, folder: Path, spec: InputSpec) -> Dataset:
    """Read one split of `omniglot28.npz`, uint8 (1623, 20, 28, 28) with ink 255 on 0.

    Raises:
        ConfigError: the file is missing, or not the one described above.
    """
    images, names, alphabets, evaluation = _read(folder / FILE_NAME)
    held_out = np.isin(alphabets, VALIDATION_ALPHABETS)
    chosen = {"train": ~evaluation & ~held_out, "val": ~evaluation & held_out, "test": evaluation}[split]
    rows = np.flatnonzero(chosen)
    return Dataset(
        "omniglot", split, tuple(images[row] for row in rows), tuple(str(names[row]) for row in rows), spec
    )


def _read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.str_], NDArray[np.str_], NDArray[np.bool_]]:
    """Return images (classes, 20, 28, 28, 1), class names, each class's alphabet and whether it evaluates."""
    images, names, alphabet_names, alphabet, lake = read_archive("omniglot", path, _KEYS)
    if images.dtype != np.uint8 or images.shape != (len(names), 20, 28, 28):
        raise ConfigError(
            f"omniglot: {path}, images: expected uint8 ({len(names)}, 20, 28, 28), "
            f"got {images.dtype} {images.shape}"
        )
    if (
        not set(VALIDATION_ALPHABETS) <= set(alphabet_names)
        or not np.isin(lake, (_BACKGROUND, _EVALUATION)).all()
    ):
        raise ConfigError(f"omniglot: {path} does not hold the background and evaluation alphabets we know")
    return images[..., np.newaxis], names, alphabet_names[alphabet], lake == _EVALUATION
