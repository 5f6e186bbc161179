"""mini-ImageNet (Vinyals et al., NeurIPS 2016; classes split by Ravi and Larochelle, ICLR 2017), 84x84 RGB.

100 classes of 600 images: 64 train, 16 validate, 20 test. Packed as JPEG, one file per split (two for train).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ...edge.inputs import InputSpec
from ..errors import ConfigError
from .archives import read_archive
from .dataset import Dataset

FILES = {
    "train": ("miniimagenet84_train_a.npz", "miniimagenet84_train_b.npz"),
    "val": ("miniimagenet84_val.npz",),
    "test": ("miniimagenet84_test.npz",),
}
SPEC = InputSpec(channels=3, height=84, width=84, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_KEYS = ("jpeg_header", "jpeg_data", "offsets", "labels", "class_names")


def load_miniimagenet(split: str, folder: Path, spec: InputSpec) -> Dataset:
    """Read and decode one split: uint8 (600, 84, 84, 3) per class; train takes 0.8 GB and a few seconds.

    Raises:
        ConfigError: a file is missing, or not of the format above.
    """
    classes: list[NDArray[np.uint8]] = []
    names: list[str] = []
    for file in FILES[split]:
        for name, images in _classes(folder / file):
            names.append(name)
            classes.append(images)
    return Dataset("miniimagenet", split, tuple(classes), tuple(names), spec)


def _classes(path: Path) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    header, data, offsets, labels, names = _read(path)
    for label, name in enumerate(names):
        rows = np.flatnonzero(labels == label)
        try:
            images = [_decoded(header + data[offsets[row] : offsets[row + 1]]) for row in rows]
            yield str(name), np.stack(images)
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise ConfigError(
                f"miniimagenet: {path}, class {name}: an image cannot be decoded ({error}); fetch it again"
            ) from None


def _decoded(jpeg: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB"))


def _read(path: Path) -> tuple[bytes, bytes, NDArray[np.int64], NDArray[np.uint8], NDArray[np.str_]]:
    """Return the common JPEG header, the images' scans, their offsets (n+1), labels (n) and class names."""
    header, data, offsets, labels, names = read_archive("miniimagenet", path, _KEYS)
    if len(offsets) != len(labels) + 1 or int(labels.max(initial=0)) >= len(names):
        raise ConfigError(
            f"miniimagenet: {path}: expected labels below {len(names)} and one offset more than labels, "
            f"got {len(labels)} labels up to {labels.max(initial=0)} and {len(offsets)} offsets"
        )
    return header.tobytes(), data.tobytes(), offsets, labels, names
