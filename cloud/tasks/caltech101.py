"""Caltech-101 (Fei-Fei et al., CVPR workshop 2004), 84x84 RGB: tests how a network trained elsewhere does here.

Of its 100 classes (without the background and the second set of faces) ten are those of mini-ImageNet, or near
them; the 90 others are the test split. There is no other.
"""

from __future__ import annotations

from pathlib import Path

from ...edge.inputs import InputSpec
from ..errors import ConfigError
from .archives import read_archive
from .dataset import Dataset
from .disk_cache import CacheConfig
from .packed import read_packed

NAME = "caltech101"
FILE_NAME = "caltech101_84.npz"
NEAR = "near_miniimagenet_class"
"""Array that names each class's twin in mini-ImageNet, or holds no text."""


def load_caltech101(split: str, folder: Path, spec: InputSpec, cache: CacheConfig | None = None) -> Dataset:
    """Read the test split: uint8 (31 to 64, H, W, 3) per class.

    Raises:
        ConfigError: another split, or the file is missing or not of the format of `packed`.
    """
    if split != "test":
        raise ConfigError(
            f"data.name: {NAME} is for tests alone, it has no {split} split; see meta-train eval"
        )
    packed = read_packed(NAME, folder / FILE_NAME)
    near = read_archive(NAME, folder / FILE_NAME, [NEAR])[0].tolist()
    apart = {name for name, twin in zip(packed.names, near, strict=True) if not twin}
    kept = list(packed.classes(spec, cache, apart))
    return Dataset(NAME, split, tuple(images for _, images in kept), tuple(name for name, _ in kept), spec)
