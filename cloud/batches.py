"""Tasks of a sampler as tensors: stacked in batches, or one by one with samples that are read on demand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from .errors import ConfigError
from .outer import Batch
from .tasks import EpisodeSampler, Task, TaskSampler

LARGEST_CHUNK = 8
"""Tasks that are evaluated together at most."""
CHUNK_WORDS = 2**20
"""Input values of the tasks that are evaluated together, at most, where one task has fewer."""


def draw(sampler: TaskSampler, first: int, count: int) -> Batch:
    """Tasks first .. first+count-1 as tensors."""
    tasks = sampler.batch(first, count)
    tensors = map(torch.from_numpy, (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y))
    return Batch(*tensors, keys=tuple((sampler.seed, index) for index in range(first, first + count)))


def chunk_of(sampler: TaskSampler) -> int:
    """How many tasks to evaluate together: 8 small ones, fewer of large images, whose maps leave the cache."""
    return max(1, min(LARGEST_CHUNK, CHUNK_WORDS // (sampler.samples * math.prod(sampler.spec.shape))))


def draw_all(sampler: TaskSampler, count: int, chunk: int | None = None) -> Iterator[Batch]:
    """Tasks 0 .. count-1, `chunk` at a time; None: as many as `chunk_of` says."""
    chunk = chunk or chunk_of(sampler)
    for first in range(0, count, chunk):
        yield draw(sampler, first, min(chunk, count - first))


def tasks_of(sampler: TaskSampler, first: int, count: int) -> Iterator[Task]:
    """Tasks first .. first+count-1, none of their samples read yet.

    Raises:
        ConfigError: they are regressions.
    """
    if not isinstance(sampler, EpisodeSampler):
        raise ConfigError(
            "data.name: regression tasks have no classes; learners without inner steps need them"
        )
    return map(sampler.task, range(first, first + count))
