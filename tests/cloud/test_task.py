"""One task whose samples are read when they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from edge_adapt.cloud.tasks import Dataset, EpisodeSampler, Stored, Task
from edge_adapt.edge.inputs import InputSpec
from numpy.typing import NDArray


def task(support_y: list[int], query_y: list[int], ways: int = 2) -> Task:
    support, query = torch.randn(3, 1, 4, 4), torch.randn(2, 1, 4, 4)
    return Task(Stored(support), torch.tensor(support_y), Stored(query), torch.tensor(query_y), ways, (0, 0))


def test_stored_samples_are_taken_by_row_in_the_order_asked_for() -> None:
    x = torch.arange(6.0).reshape(3, 1, 1, 2)
    samples = Stored(x)
    assert len(samples) == 3
    assert samples.take(torch.tensor([2, 0, 2])).flatten().tolist() == [4, 5, 0, 1, 4, 5]


def test_labels_may_come_in_any_order_and_number_per_class() -> None:
    assert len(task([1, 0, 1], [0, 0]).support) == 3


@pytest.mark.parametrize(
    ("support_y", "query_y", "message"),
    [
        ([0, 1], [0, 1], r"support: expected one label per sample, \(3,\), got \(2,\)"),
        ([0, 1, 1], [0], r"query: expected one label per sample, \(2,\), got \(1,\)"),
        ([1, 1, 1], [0, 1], r"support: expected labels 0 to 1, each at least once, got 0, 3 samples"),
        ([0, 1, 2], [0, 1], r"support: expected labels 0 to 1, .* got 1, 1, 1 samples"),
    ],
)
def test_a_task_that_does_not_fit_together_is_refused(
    support_y: list[int], query_y: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        task(support_y, query_y)


class Counts:
    """A class of images that remembers which of them were read."""

    def __init__(self, kind: int, side: int = 8) -> None:
        self.images = np.random.default_rng(kind).integers(0, 256, (9, side, side, 3), np.uint8)
        self.shape, self.dtype = self.images.shape, self.images.dtype
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.read += rows.tolist()
        return self.images[rows]


def sampler_of(classes: tuple[Counts, ...], **options: Any) -> EpisodeSampler:
    spec = InputSpec(3, 8, 8, mean=(0.5,) * 3, std=(0.25,) * 3)
    data = Dataset("toy", "train", classes, tuple("abcdef"[: len(classes)]), spec)
    return EpisodeSampler(data, ways=3, shots=2, queries=4, seed=5, **options)


@pytest.mark.parametrize("options", [{}, {"rotations": True}, {"augmentation": 1.0}])
def test_a_samplers_task_has_the_images_of_its_batch(options: dict[str, Any]) -> None:
    sampler = sampler_of(tuple(map(Counts, range(4))), **options)
    task, batch = sampler.task(7), sampler.batch(7, 1)
    for mine, labels, theirs, expected in (
        (task.support, task.support_y, batch.support_x, batch.support_y),
        (task.query, task.query_y, batch.query_x, batch.query_y),
    ):
        rows = torch.randperm(len(mine))
        assert mine.take(rows).numpy().tobytes() == theirs[0][rows.numpy()].tobytes()
        assert labels.tolist() == expected[0].tolist()
    assert (task.ways, task.key) == (3, (5, 7))


def test_only_the_images_that_are_taken_are_read() -> None:
    classes = tuple(map(Counts, range(4)))
    task = sampler_of(classes).task(0)
    assert sum(len(images.read) for images in classes) == 0
    task.support.take(torch.tensor([0, 5]))
    assert sum(len(images.read) for images in classes) == 2
