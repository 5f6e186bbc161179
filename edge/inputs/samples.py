"""Samples in memory: a checked support set, a query set, and how they reach the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kinds import Spec

Stored = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class SupportSet:
    """Samples and what is said about them, checked.

    Attributes:
        images: uint8 (n, H, W, C) pixels, or float32 (n, C, H, W) values that are preprocessed already; of an
            array input float32 (n, *shape), not preprocessed.
        given: by input part of the program: `labels` (int64 (n,), indices into class_names), or `targets`, or
            `actions` and `advantages`.
        class_names: sorted folder names, or sorted unique labels written as text; none without classes.
        spec: the input spec the samples were read for.
        decode_bytes: the largest price of decoding one image, above the samples kept; 0 for arrays.
        converted: what was done to image files, one short phrase each ("3 images resized to 28x28").
    """

    images: Stored
    given: Mapping[str, NDArray[Any]]
    class_names: tuple[str, ...]
    spec: Spec
    decode_bytes: int = 0
    converted: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, int64 (n,), of a labelled set."""
        return self.given["labels"]

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample as it is kept."""
        return int(self.images[0].nbytes)

    @property
    def held_bytes(self) -> int:
        """Bytes of what is said about the samples."""
        return sum(array.nbytes for array in self.given.values())

    @property
    def read_seconds(self) -> float:
        """What reading the samples takes: they are in memory."""
        return 0.0

    def loss_inputs(self) -> Mapping[str, NDArray[Any]]:
        """Return what the loss reads of every sample, by input part of the program."""
        return self.given

    def part(self, start: int, stop: int) -> SupportSet:
        """Return samples `start` to `stop` - 1; nothing is copied."""
        given = {name: array[start:stop] for name, array in self.given.items()}
        return replace(self, images=self.images[start:stop], given=given)

    def fill(self, start: int, out: NDArray[np.float32]) -> None:
        """Write samples start, start+1, ... as network inputs into `out`, float32 (m, ...)."""
        fill(self.images, self.spec, start, out)


@dataclass(frozen=True)
class QuerySet:
    """Samples to predict.

    Attributes:
        images: as in SupportSet.
        names: where each sample came from: a path relative to the folder, or its index in the array.
        labels: the true class's name of each sample where the input tells (class sub-folders, npz labels).
        spec: the input spec the samples were read for.
        decode_bytes: as in SupportSet.
        converted: as in SupportSet.
    """

    images: Stored
    names: tuple[str, ...]
    labels: tuple[str, ...] | None
    spec: Spec
    decode_bytes: int = 0
    converted: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def fill(self, start: int, out: NDArray[np.float32]) -> None:
        """Write samples start, start+1, ... as network inputs into `out`, float32 (m, ...)."""
        fill(self.images, self.spec, start, out)


def fill(images: Stored, spec: Spec, start: int, out: NDArray[np.float32]) -> None:
    """Write `len(out)` samples from `start` on into `out`, as the spec says.

    Raises:
        ValueError: `out` of another shape, or more samples asked for than there are.
    """
    chosen = images[start : start + len(out)]
    if len(chosen) != len(out):
        raise ValueError(f"asked for samples {start} to {start + len(out) - 1}, there are {len(images)}")
    spec.write(chosen, out)
