"""Data sets by name, or by the path of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from ...edge.inputs import InputSpec
from ..errors import ConfigError
from . import glyphs, miniimagenet, omniglot
from .dataset import SPLITS, Dataset
from .folder import load_folder

DATA_VARIABLE = "EDGE_ADAPT_DATA"


@dataclass(frozen=True)
class _Source:
    """A named data set: one line about it, its default spec, and how to load a split."""

    line: str
    spec: InputSpec
    load: Callable[[str, Path, InputSpec], Dataset]


_SOURCES = {
    "glyphs": _Source(
        "characters of the DejaVu fonts, distorted; split by script; 28x28 grey; built in, no download",
        glyphs.SPEC,
        lambda split, _folder, spec: replace(glyphs.load_glyphs(split), spec=spec),
    ),
    "omniglot": _Source(
        f"1623 handwritten characters, 20 drawings each; 28x28 grey; needs {omniglot.FILE_NAME}",
        omniglot.SPEC,
        omniglot.load_omniglot,
    ),
    "miniimagenet": _Source(
        "100 classes of ImageNet, 600 photographs each; 84x84 RGB; needs miniimagenet84_*.npz",
        miniimagenet.SPEC,
        miniimagenet.load_miniimagenet,
    ),
}


def load_dataset(
    name_or_path: str,
    split: str,
    data_dir: str | PathLike[str] | None = None,
    spec: InputSpec | None = None,
) -> Dataset:
    """Load one split of a data set.

    Args:
        name_or_path: "glyphs", "omniglot", "miniimagenet", or a folder with one sub-folder of images per class
            (optionally below train/, val/ and test/).
        split: "train", "val" or "test".
        data_dir: where omniglot28.npz or miniimagenet84_*.npz lie; the environment variable EDGE_ADAPT_DATA, or
            the working directory, when None.
        spec: shape and preprocessing; required for a folder, and must fit the images of a named data set.

    Raises:
        ConfigError: unknown name, missing file, a spec that does not fit.
    """
    if split not in SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    source = _SOURCES.get(name_or_path)
    if source is not None:
        folder = Path(data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE, "."))
        return source.load(split, folder, spec or source.spec)
    if not Path(name_or_path).is_dir():
        raise ConfigError(f"dataset: {name_or_path!r} is neither a folder nor one of {', '.join(_SOURCES)}")
    if spec is None:
        raise ConfigError(f"dataset: the folder {name_or_path} needs an input spec (size and channels)")
    return load_folder(Path(name_or_path), split, spec)


def describe_datasets() -> dict[str, str]:
    """Return each data set's name with one line about it, for `meta-train list`."""
    lines = {name: source.line for name, source in _SOURCES.items()}
    return {
        **lines,
        "FOLDER": "any folder with one sub-folder of images per class, or train/ val/ test/ of such",
    }
