"""Few-shot episodes, a pure function of (seed, index): resuming and sharding need no state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
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
        ways: classes per episode, drawn without replacement.
        shots: support samples per class.
        queries: query samples per class, none of them in the support set.
        seed: with the episode's index, all that an episode depends on.
        rotations: add the 90, 180 and 270 degree rotations of every class as classes (training only).

    Raises:
        ConfigError: naming the field that does not fit the data set.
    """

    def __init__(
        self, dataset: Dataset, *, ways: int, shots: int, queries: int, seed: int, rotations: bool = False
    ) -> None:
        _check(dataset, ways, shots, queries, seed, rotations)
        classes = _rotated(dataset.classes) if rotations else dataset.classes
        self.dataset = dataset
        self.ways, self.shots, self.queries, self.seed = ways, shots, queries, seed
        self._images = np.concatenate(classes)
        self._sizes = np.array([len(images) for images in classes])
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._support_y = np.repeat(np.arange(ways, dtype=np.int64), shots)
        self._query_y = np.repeat(np.arange(ways, dtype=np.int64), queries)

    def _rows(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the rows of `_images` that make episode `index`: support, then query."""
        rng = np.random.default_rng([self.seed, index])
        drawn = rng.choice(len(self._sizes), self.ways, replace=False)
        per_class = self.shots + self.queries
        rows = np.stack(
            [self._starts[c] + rng.choice(self._sizes[c], per_class, replace=False) for c in drawn]
        )
        return rows[:, : self.shots].ravel(), rows[:, self.shots :].ravel()

    def episode(self, index: int) -> Episode:
        """Return episode `index` (from 0), always the same for the same data set and settings."""
        support, query = self._rows(index)
        return Episode(
            self._images[support], self._support_y.copy(), self._images[query], self._query_y.copy()
        )

    def batch(self, first_index: int, count: int) -> EpisodeBatch:
        """Return episodes first_index .. first_index+count-1, stacked and preprocessed."""
        rows = [self._rows(index) for index in range(first_index, first_index + count)]
        return EpisodeBatch(
            self._inputs([support for support, _ in rows]),
            np.tile(self._support_y, (count, 1)),
            self._inputs([query for _, query in rows]),
            np.tile(self._query_y, (count, 1)),
        )

    def _inputs(self, rows: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Gather and preprocess T lists of N rows: float32 (T, N, C, H, W)."""
        spec = self.dataset.spec
        flat = spec.preprocess(self._images[np.concatenate(rows)])
        return flat.reshape(len(rows), -1, *spec.shape)


def _rotated(classes: tuple[NDArray[np.uint8], ...]) -> tuple[NDArray[np.uint8], ...]:
    """Return every class four times: turned by 0, 90, 180 and 270 degrees."""
    return tuple(np.rot90(images, turns, axes=(1, 2)) for turns in range(4) for images in classes)


def _check(dataset: Dataset, ways: int, shots: int, queries: int, seed: int, rotations: bool) -> None:
    for field, value, least in (
        ("ways", ways, 2),
        ("shots", shots, 1),
        ("queries", queries, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ConfigError(f"{field}: expected at least {least}, got {value}")
    where = f"{dataset.name} {dataset.split}"
    if rotations and dataset.split != "train":
        raise ConfigError(f"rotations: only for the train split, not for {where}")
    if rotations and dataset.spec.height != dataset.spec.width:
        raise ConfigError(f"rotations: images of {where} are not square, {dataset.spec.pixel_shape}")
    available = len(dataset) * (4 if rotations else 1)
    if ways > available:
        raise ConfigError(f"ways: {ways} asked for, but {where} has {available} classes")
    smallest = min(range(len(dataset)), key=lambda c: len(dataset.classes[c]))
    if shots + queries > len(dataset.classes[smallest]):
        raise ConfigError(
            f"shots + queries: {shots} + {queries} asked for, but class {dataset.class_names[smallest]} "
            f"of {where} has {len(dataset.classes[smallest])} samples"
        )
