"""Few-shot episodes, a pure function of (seed, index): resuming and sharding need no state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...edge.inputs import InputSpec, Spec
from ..errors import ConfigError
from .dataset import Dataset
from .distortion import Distortion, draw_motion
from .images import Images, Picked, Turned
from .task import Task


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
        support_x: float32 (T, ways*shots, C, H, W); of a regression (T, shots, ...).
        support_y: int64 (T, ways*shots); of a regression float32 (T, shots, outputs).
        query_x: float32 (T, ways*queries, C, H, W); of a regression (T, queries, ...).
        query_y: int64 (T, ways*queries); of a regression float32 (T, queries, outputs).
    """

    support_x: NDArray[np.float32]
    support_y: NDArray[Any]
    query_x: NDArray[np.float32]
    query_y: NDArray[Any]


class TaskSampler(Protocol):
    """Tasks by number: the same number always gives the same task."""

    @property
    def spec(self) -> Spec:
        """Shape and preprocessing of a sample."""

    @property
    def outputs(self) -> int:
        """Outputs that a network for these tasks has: classes, or numbers in a target."""

    @property
    def samples(self) -> int:
        """Samples of a task, support and query together."""

    @property
    def seed(self) -> int:
        """With a task's number, all that the task depends on."""

    def batch(self, first_index: int, count: int) -> EpisodeBatch:
        """Return tasks first_index .. first_index+count-1, stacked and preprocessed."""


class EpisodeSampler:
    """Draws episodes from one split.

    Args:
        dataset: the split.
        ways: classes per episode, drawn without replacement.
        shots: support samples per class.
        queries: query samples per class, none of them in the support set.
        seed: with the episode's index, all that an episode depends on.
        rotations: add the 90, 180 and 270 degree rotations of every class as classes (training only).
        augmentation: move every drawn image at random, this many times the strength of `Distortion()`
            (training only; 0: not at all).

    Raises:
        ConfigError: naming the field that does not fit the data set.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        ways: int,
        shots: int,
        queries: int,
        seed: int,
        rotations: bool = False,
        augmentation: float = 0.0,
    ) -> None:
        _check(dataset, ways, shots, queries, seed)
        _check_training(dataset, ways, rotations, augmentation)
        self.dataset = dataset
        self._classes = _rotated(dataset.classes) if rotations else dataset.classes
        self.ways, self.shots, self.queries, self.seed = ways, shots, queries, seed
        self._motion = Distortion().times(augmentation) if augmentation else None
        self._support_y = np.repeat(np.arange(ways, dtype=np.int64), shots)
        self._query_y = np.repeat(np.arange(ways, dtype=np.int64), queries)

    @property
    def spec(self) -> InputSpec:
        """Shape and preprocessing of a sample."""
        return self.dataset.spec

    @property
    def outputs(self) -> int:
        """Outputs that a network for these tasks has."""
        return self.ways

    @property
    def samples(self) -> int:
        """Samples of a task, support and query together."""
        return self.ways * (self.shots + self.queries)

    def _draw(self, index: int) -> tuple[Picked, Picked]:
        """Pick the images of episode `index`: support, then query."""
        rng = np.random.default_rng([self.seed, index])
        kinds = rng.choice(len(self._classes), self.ways, replace=False)
        per_class = self.shots + self.queries
        rows = np.stack([rng.choice(len(self._classes[kind]), per_class, replace=False) for kind in kinds])
        cut = self.ways * self.shots
        rows = np.concatenate([rows[:, : self.shots].ravel(), rows[:, self.shots :].ravel()])
        kinds = np.concatenate([np.repeat(kinds, self.shots), np.repeat(kinds, self.queries)])
        motion = None if self._motion is None else draw_motion(len(rows), self._motion, rng)
        picked = Picked(self._classes, kinds, rows, self.dataset.spec, motion)
        return picked[np.arange(cut)], picked[np.arange(cut, len(rows))]

    def task(self, index: int) -> Task:
        """Return episode `index` with samples that are read when they are asked for."""
        support, query = self._draw(index)
        labels = map(torch.from_numpy, (self._support_y.copy(), self._query_y.copy()))
        return Task(support, next(labels), query, next(labels), self.ways, (self.seed, index))

    def episode(self, index: int) -> Episode:
        """Return episode `index` (from 0), always the same for the same data set and settings."""
        support, query = self._draw(index)
        return Episode(support.pixels(), self._support_y.copy(), query.pixels(), self._query_y.copy())

    def batch(self, first_index: int, count: int) -> EpisodeBatch:
        """Return episodes first_index .. first_index+count-1, stacked and preprocessed."""
        drawn = [self._draw(index) for index in range(first_index, first_index + count)]
        return EpisodeBatch(
            self._inputs([support.pixels() for support, _ in drawn]),
            np.tile(self._support_y, (count, 1)),
            self._inputs([query.pixels() for _, query in drawn]),
            np.tile(self._query_y, (count, 1)),
        )

    def _inputs(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Preprocess T stacks of N images: float32 (T, N, C, H, W)."""
        spec = self.dataset.spec
        return spec.preprocess(np.concatenate(images)).reshape(len(images), -1, *spec.shape)


def _rotated(classes: tuple[Images, ...]) -> tuple[Images, ...]:
    """Return every class four times: turned by 0, 90, 180 and 270 degrees."""
    return tuple(Turned(images, quarters) for quarters in range(4) for images in classes)


def sample_settings(split: str) -> str:
    """The settings that say how many samples of a class, or of a function, a task of a split has."""
    if split == "train":
        return "task.shots (or task.training_shots) + task.queries (or task.training_queries)"
    return "task.shots + task.queries"


def _check(dataset: Dataset, ways: int, shots: int, queries: int, seed: int) -> None:
    for field, value, least in (
        ("ways", ways, 2),
        ("shots", shots, 1),
        ("queries", queries, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ConfigError(f"{field}: expected at least {least}, got {value}")
    where = f"{dataset.name} {dataset.split}"
    smallest = min(range(len(dataset)), key=lambda c: len(dataset.classes[c]))
    if shots + queries > len(dataset.classes[smallest]):
        raise ConfigError(
            f"{sample_settings(dataset.split)}: {shots} + {queries} asked for, but class "
            f"{dataset.class_names[smallest]} of {where} has {len(dataset.classes[smallest])} samples; ask for fewer, "
            "or give the class more"
        )
    kept = dataset.kept_at_once
    if kept is not None and ways * shots > kept:
        raise ConfigError(
            f"data.cache_size: the cache holds {kept} images of {where}, but a task's support set has "
            f"{ways} x {shots} = {ways * shots}; make it larger"
        )


def _check_training(dataset: Dataset, ways: int, rotations: bool, augmentation: float) -> None:
    where = f"{dataset.name} {dataset.split}"
    if augmentation < 0:
        raise ConfigError(f"augmentation: expected at least 0, got {augmentation}")
    for field, asked in (("rotations", rotations), ("augmentation", augmentation)):
        if asked and dataset.split != "train":
            raise ConfigError(f"{field}: only for the train split, not for {where}")
        if asked and dataset.spec.height != dataset.spec.width:
            raise ConfigError(f"{field}: images of {where} are not square, {dataset.spec.pixel_shape}")
    available = len(dataset) * (4 if rotations else 1)
    if ways > available:
        raise ConfigError(
            f"task.ways: {ways} asked for, but {where} has {available} classes; ask for fewer, or add classes"
        )
