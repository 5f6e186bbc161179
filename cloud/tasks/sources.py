"""Data sets by name, or by the path of a folder."""

from __future__ import annotations

from os import PathLike

from ...edge.inputs import InputSpec
from .dataset import Dataset


def load_dataset(
    name_or_path: str,
    split: str,
    data_dir: str | PathLike[str] | None = None,
    spec: InputSpec | None = None,
) -> Dataset:
    """Load one split of a data set.

    Args:
        name_or_path: "glyphs", "omniglot", or a folder with one sub-folder of images per class (optionally
            below train/, val/ and test/).
        split: "train", "val" or "test".
        data_dir: where omniglot28.npz lies; the environment variable EDGE_ADAPT_DATA when None.
        spec: shape and preprocessing; required for a folder, and must fit the images of a named data set.

    Raises:
        ConfigError: unknown name, missing file, a spec that does not fit.
    """
    raise NotImplementedError


def describe_datasets() -> dict[str, str]:
    """Return each data set's name with one line about it, for `meta-train list`."""
    raise NotImplementedError
