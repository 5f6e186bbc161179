"""`ADAPTED.partial/`: the last finished step of an adaptation, so that a crash or Ctrl-C costs one step.

Plain SGD has no state but the weights, so weights, step count and losses resume to the same numbers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..writing import writing
from .tensors import TensorFile, write_tensors

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Progress:
    """The state after `len(losses)` finished steps.

    Attributes:
        tensors: values of the parameters that adaptation changes.
        losses: mean support loss before each finished step.
    """

    tensors: Tensors
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Checkpoint:
    """Where progress is kept, and what it must agree with to be continued.

    Attributes:
        directory: `ADAPTED.partial`.
        key: what makes two runs the same: bundle, support set, plan (each a digest), by name.
    """

    directory: Path
    key: Mapping[str, str] = field(default_factory=dict)

    def of(self, key: Mapping[str, str]) -> Checkpoint:
        """Return the same place, bound to one run."""
        return replace(self, key=key)

    @property
    def path(self) -> Path:
        """The one file of the directory."""
        return self.directory / "progress.safetensors"

    def save(self, tensors: Tensors, losses: tuple[float, ...]) -> None:
        """Replace the kept state, atomically, by that after one more step; raises EdgeAdaptError if it cannot."""
        with writing(self.directory, sum(value.nbytes for value in tensors.values())):
            self.directory.mkdir(parents=True, exist_ok=True)
            write_tensors(self.path, tensors, {**self.key, "losses": json.dumps(losses)})

    def load(self) -> Progress | None:
        """Return the kept state, or None where there is none.

        Raises:
            BundleError: what is kept is damaged or belongs to another run; says which.
        """
        if not self.path.is_file():
            return None
        file = TensorFile.open(self.path)
        for name, value in self.key.items():
            if file.metadata.get(name) != value:
                raise BundleError(f"{self.directory}: was made with another {name}")
        try:
            losses = tuple(float(loss) for loss in json.loads(file.metadata["losses"]))
        except (KeyError, TypeError, ValueError):
            raise BundleError(f"{self.path}: losses are not readable") from None
        tensors = {name: file.copy(name) for name in file.entries}
        if not all(np.isfinite(value).all() for value in tensors.values()):
            raise BundleError(f"{self.path}: holds values that are not finite")
        return Progress(tensors, losses)

    def clear(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.directory, ignore_errors=True)
