"""Few-shot episodes, a pure function of (seed, index): resuming and sharding need no state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .dataset import Dataset


@dataclass(frozen=True)
class Episode:
    """One task. Samples are grouped by class: labels are 0 x shots, 1 x shots, ...

    Attributes:
        support_x: uint8 (ways*shots, H, W, C).
        support_y: int64 (ways*shots,).
        query_x: uint8 (ways*queries, H, W, C).
        query_y: int64 (ways*queries,).
    """

    support_x: NDArray[np.uint8]
    support_y: NDArray[np.int64]
    query_x: NDArray[np.uint8]
    query_y: NDArray[np.int64]


@dataclass(frozen=True)
class EpisodeBatch:
    """T tasks, preprocessed.

    Attributes:
        support_x: float32 (T, ways*shots, C, H, W).
        support_y: int64 (T, ways*shots).
        query_x: float32 (T, ways*queries, C, H, W).
        query_y: int64 (T, ways*queries).
    """

    support_x: NDArray[np.float32]
    support_y: NDArray[np.int64]
    query_x: NDArray[np.float32]
    query_y: NDArray[np.int64]


class EpisodeSampler:
    """Draws episodes from one split.

    Args:
        dataset: the split.
        ways: classes per episode.
        shots: support samples per class.
        queries: query samples per class.
        seed: with the episode's index, all that an episode depends on.
        rotations: add the 90, 180 and 270 degree rotations of every class as classes (training only).

    Raises:
        ConfigError: naming the field that does not fit the data set.
    """

    def __init__(
        self, dataset: Dataset, *, ways: int, shots: int, queries: int, seed: int, rotations: bool = False
    ) -> None:
        raise NotImplementedError

    def episode(self, index: int) -> Episode:
        """Return episode `index`."""
        raise NotImplementedError

    def batch(self, first_index: int, count: int) -> EpisodeBatch:
        """Return episodes first_index .. first_index+count-1, stacked and preprocessed."""
        raise NotImplementedError
