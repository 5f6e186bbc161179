"""Any folder of images as a data set: one sub-folder per class, or train/, val/ and test/ of such."""

from __future__ import annotations

from pathlib import Path

from ...edge.inputs import InputSpec
from .dataset import Dataset


def load_folder(folder: Path, split: str, spec: InputSpec) -> Dataset:
    """Read one split of a folder."""
    raise NotImplementedError
