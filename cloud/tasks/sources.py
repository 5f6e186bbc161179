"""Data sets by name, or by the path of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from ...edge.inputs import ArraySpec, InputSpec
from ..errors import ConfigError
from ..losses import CROSS_ENTROPY, SQUARED_ERROR, Loss
from . import arrays, caltech101, glyphs, miniimagenet, omniglot, packed, sinusoid
from .dataset import SPLITS, Dataset
from .disk_cache import CacheConfig
from .folder import load_folder
from .functions import Functions

_REGRESSIONS = {
    sinusoid.NAME: "sines of any amplitude and phase, 1 number to 1 number, mean squared error; built in",
    arrays.NAME.upper(): "any folder of .npz files, one regression task each: inputs (n, ...), targets (n, outputs)",
}
DATA_VARIABLE = "EDGE_ADAPT_DATA"


@dataclass(frozen=True)
class _Source:
    """A named data set.

    Attributes:
        line: about it.
        spec: its own.
        load: a split, from a folder, for a spec, through a cache.
        decoded: whether its images are files to decode, which may have any size and lie in a cache.
    """

    line: str
    spec: InputSpec
    load: Callable[[str, Path, InputSpec, CacheConfig | None], Dataset]
    decoded: bool = False


_SOURCES = {
    "glyphs": _Source(
        "characters of the DejaVu fonts, distorted; split by script; 28x28 grey; built in, no download",
        glyphs.SPEC,
        lambda split, _folder, spec, _cache: replace(glyphs.load_glyphs(split), spec=spec),
    ),
    "omniglot": _Source(
        f"1623 handwritten characters, 20 drawings each; 28x28 grey; needs {omniglot.FILE_NAME}",
        omniglot.SPEC,
        lambda split, folder, spec, _cache: omniglot.load_omniglot(split, folder, spec),
    ),
    miniimagenet.NAME: _Source(
        "100 classes of ImageNet, 600 photographs each; 84x84 RGB; needs miniimagenet84_*.npz",
        packed.SPEC,
        miniimagenet.load_miniimagenet,
        decoded=True,
    ),
    caltech101.NAME: _Source(
        f"90 classes unlike those of miniimagenet, for tests alone; 84x84 RGB; needs {caltech101.FILE_NAME}",
        packed.SPEC,
        caltech101.load_caltech101,
        decoded=True,
    ),
}
DECODED: Mapping[str, InputSpec] = {name: source.spec for name, source in _SOURCES.items() if source.decoded}
"""Named data sets whose images may have any size and lie in a cache, with the spec that they bring."""


def load_dataset(
    name_or_path: str,
    split: str,
    data_dir: str | PathLike[str] | None = None,
    spec: InputSpec | None = None,
    cache: CacheConfig | None = None,
) -> Dataset:
    """Load one split of a data set.

    Args:
        name_or_path: "glyphs", "omniglot", "miniimagenet", "caltech101", or a folder with one sub-folder of images
            per class (optionally below train/, val/ and test/).
        split: "train", "val" or "test".
        data_dir: where the .npz files of a named data set lie; the environment variable EDGE_ADAPT_DATA, or
            the working directory, when None.
        spec: shape and preprocessing; required for a folder, and must fit the images of a named data set, but for
            those of `DECODED`, whose images are resized.
        cache: decode images when they are asked for, and keep them there; None: decode all now. Data sets that
            are not decoded have no use for it.

    Raises:
        ConfigError: unknown name, missing file, a spec that does not fit.
    """
    if split not in SPLITS:
        raise ConfigError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    source = _SOURCES.get(name_or_path)
    if source is not None:
        folder = Path(data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE, "."))
        return source.load(split, folder, spec or source.spec, cache)
    if not Path(name_or_path).is_dir():
        raise ConfigError(f"dataset: {name_or_path!r} is neither a folder nor one of {', '.join(_SOURCES)}")
    if spec is None:
        raise ConfigError(f"dataset: the folder {name_or_path} needs an input spec (size and channels)")
    return load_folder(Path(name_or_path), split, spec, cache)


def load_functions(
    name: str,
    split: str,
    folder: Path | None,
    spec: ArraySpec | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Functions:
    """Load one split of a source of regression tasks.

    Args:
        name: "sinusoid" or "arrays".
        split: "train", "val" or "test".
        folder: of "arrays", see `load_arrays`.
        spec: what a trained network expects; None: what the source brings.
        mean: see `load_arrays`.
        std: see `load_arrays`.

    Raises:
        ConfigError: no folder where one is needed, a damaged file, a spec that does not fit.
    """
    if name == arrays.NAME:
        if folder is None:
            raise ConfigError("data.root: which folder of .npz files? Name it with --data DIR")
        return arrays.load_arrays(folder, split, spec, mean, std)
    if spec is not None and spec.shape != sinusoid.SPEC.shape:
        raise ConfigError(f"data: {name} has samples of shape (1,), but the network expects {spec.shape}")
    return replace(sinusoid.sinusoids(split), spec=spec or sinusoid.SPEC)


def describe_datasets() -> dict[str, str]:
    """Return each data set's name with one line about it, for `meta-train list`."""
    lines = {name: source.line for name, source in _SOURCES.items()}
    return {
        **lines,
        "FOLDER": "any folder with one sub-folder of images per class, or train/ val/ test/ of such",
        **_REGRESSIONS,
    }


def loss_of(name: str) -> Loss:
    """What tasks of a data set are: classifications, or regressions."""
    return SQUARED_ERROR if name in (sinusoid.NAME, arrays.NAME) else CROSS_ENTROPY
