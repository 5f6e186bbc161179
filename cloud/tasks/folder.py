"""Any folder of images as a data set: one sub-folder per class, or train/, val/ and test/ of such."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...edge.errors import SupportError
from ...edge.inputs import InputSpec, class_files, read_files
from ..errors import ConfigError
from .dataset import SPLITS, Dataset
from .disk_cache import CacheConfig
from .images import Images
from .on_demand import from_files

VALIDATION_SHARE = 0.15
TEST_SHARE = 0.15


def load_folder(folder: Path, split: str, spec: InputSpec, cache: CacheConfig | None = None) -> Dataset:
    """Read one split of a folder, converting images to the spec exactly as the device does.

    With a cache only the headers are read now, of images that are not in it yet.

    Without train/, val/ and test/ the classes are shared out by the order of their names' sha256: 15 % val,
    15 % test (at least one each), the rest train.

    Raises:
        ConfigError: no such split, too few classes, an empty class, an image that cannot be used.
    """
    try:
        chosen = _class_files_of(folder, split)
        kept = None if cache is None else cache.open(spec.pixel_shape)
        classes: tuple[Images, ...] = tuple(
            read_files(files, spec)[0] if kept is None else from_files(files, spec, kept)
            for files in chosen.values()
        )
    except SupportError as error:
        raise ConfigError(f"dataset: {error}") from None
    return Dataset(str(folder), split, classes, tuple(chosen), spec)


def _class_files_of(folder: Path, split: str) -> dict[str, list[Path]]:
    """Return class name -> files of one split."""
    parts = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    if not set(parts) & set(SPLITS):
        classes = class_files(folder)
        return {name: classes[name] for name in split_names(list(classes), folder)[split]}
    if split not in parts:
        raise ConfigError(f"dataset: {folder} has {', '.join(sorted(parts))} but no {split}/")
    return class_files(folder / split)


def split_names(names: list[str], folder: Path, what: str = "classes") -> dict[str, list[str]]:
    """Share names (of classes) out to train, val and test; the same names always give the same shares."""
    if len(names) < len(SPLITS):
        raise ConfigError(f"dataset: {folder} has {len(names)} {what}; three splits need at least 3")
    shuffled = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    val = max(1, round(VALIDATION_SHARE * len(names)))
    test = max(1, round(TEST_SHARE * len(names)))
    parts = {"val": shuffled[:val], "test": shuffled[val : val + test], "train": shuffled[val + test :]}
    return {split: sorted(part) for split, part in parts.items()}
