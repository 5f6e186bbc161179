"""mini-ImageNet (Vinyals et al., NeurIPS 2016; classes split by Ravi and Larochelle, ICLR 2017), 84x84 RGB.

100 classes of 600 images: 64 train, 16 validate, 20 test. Packed as JPEG, one file per split (two for train).
"""

from __future__ import annotations

from pathlib import Path

from ...edge.inputs import InputSpec
from .dataset import Dataset
from .disk_cache import CacheConfig
from .images import Images
from .packed import read_packed

NAME = "miniimagenet"
FILES = {
    "train": ("miniimagenet84_train_a.npz", "miniimagenet84_train_b.npz"),
    "val": ("miniimagenet84_val.npz",),
    "test": ("miniimagenet84_test.npz",),
}


def load_miniimagenet(split: str, folder: Path, spec: InputSpec, cache: CacheConfig | None = None) -> Dataset:
    """Read one split: uint8 (600, H, W, 3) per class.

    Without a cache all images are decoded now: at 84 pixels train takes 0.8 GB and a few seconds.

    Raises:
        ConfigError: a file is missing, or not of the format above.
    """
    classes: list[tuple[str, Images]] = []
    for file in FILES[split]:
        classes += read_packed(NAME, folder / file).classes(spec, cache)
    return Dataset(
        NAME, split, tuple(images for _, images in classes), tuple(name for name, _ in classes), spec
    )
