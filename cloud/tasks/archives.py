"""The arrays of a data set's .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError


def read_archive(dataset: str, path: Path, keys: Sequence[str]) -> tuple[NDArray[Any], ...]:
    """Return the named arrays; raises ConfigError, naming data set and file, where it is missing or damaged."""
    if not path.is_file():
        raise ConfigError(
            f"{dataset}: {path} does not exist; put {path.name} into a folder and name it with --data "
            "or the environment variable EDGE_ADAPT_DATA"
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return tuple(archive[key] for key in keys)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{dataset}: {path} cannot be read ({error}); fetch {path.name} again") from None
