"""Tasks of a sampler as tensors: stacked in batches, or one by one with samples that are read on demand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..errors import ConfigError
from ..outer import Batch
from ..tasks import EpisodeSampler, Task, TaskSampler

LARGEST_CHUNK = 8
"""Tasks that are evaluated together at most."""
CHUNK_WORDS = 2**20
"""Input values of the tasks that are evaluated together, at most, where one task has fewer."""


def draw(sampler: TaskSampler, first: int, count: int) -> Batch:
    """Tasks first .. first+count-1 as tensors."""
    tasks = sampler.batch(first, count)
    tensors = map(torch.from_numpy, (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y))
    return Batch(*tensors, keys=tuple((sampler.seed, index) for index in range(first, first + count)))


@dataclass(frozen=True)
class Drawn:
    """Tasks first .. first+count-1 of a sampler, see `Tasks`: only those of a chunk are in memory.

    Attributes:
        sampler: their source.
        first: number of the first.
        count: how many.
        device: where their tensors go.
    """

    sampler: TaskSampler
    first: int
    count: int
    device: torch.device

    def __len__(self) -> int:
        return self.count

    def chunk(self, start: int, stop: int) -> Batch:
        """See `Tasks.chunk`."""
        return draw(self.sampler, self.first + start, stop - start).to(self.device)


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
