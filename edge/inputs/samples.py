"""Samples in memory: a checked support set, a query set, and how they reach the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .spec import InputSpec

Pixels = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class SupportSet:
    """Labelled samples, checked.

    Attributes:
        images: uint8 (n, H, W, C) pixels, or float32 (n, C, H, W) values that are preprocessed already.
        labels: int64 (n,), indices into class_names.
        class_names: sorted folder names, or sorted unique labels written as text.
        spec: the input spec the samples were read for.
        decode_bytes: the largest price of decoding one image, above the samples kept; 0 for arrays.
        converted: what was done to image files, one short phrase each ("3 images resized to 28x28").
    """

    images: Pixels
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    spec: InputSpec
    decode_bytes: int = 0
    converted: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def fill(self, start: int, out: NDArray[np.float32]) -> None:
        """Write samples start, start+1, ... as network inputs into `out`, float32 (m, C, H, W)."""
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

    images: Pixels
    names: tuple[str, ...]
    labels: tuple[str, ...] | None
    spec: InputSpec
    decode_bytes: int = 0
    converted: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def fill(self, start: int, out: NDArray[np.float32]) -> None:
        """Write samples start, start+1, ... as network inputs into `out`, float32 (m, C, H, W)."""
        fill(self.images, self.spec, start, out)


def fill(images: Pixels, spec: InputSpec, start: int, out: NDArray[np.float32]) -> None:
    """Write `len(out)` samples from `start` on into `out`: preprocessed if uint8, copied if float32.

    Raises:
        ValueError: `out` of another shape, or more samples asked for than there are.
    """
    chosen = images[start : start + len(out)]
    if len(chosen) != len(out):
        raise ValueError(f"asked for samples {start} to {start + len(out) - 1}, there are {len(images)}")
    if chosen.dtype == np.uint8:
        spec.preprocess(chosen.view(np.uint8), out)
    else:
        np.copyto(out, chosen, casting="no")
