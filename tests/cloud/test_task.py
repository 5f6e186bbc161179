"""One task whose samples are read when they are asked for."""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.tasks import Stored, Task


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
