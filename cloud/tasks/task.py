"""One task whose samples are read when they are asked for: what learners with large support sets work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Samples(Protocol):
    """A number of samples, none of them in memory until it is taken."""

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> Tensor:
        """Return the samples of these rows, int64 (n,): float32 (n, C, H, W), preprocessed."""


@dataclass(frozen=True)
class Stored:
    """Samples that are in memory: x float32 (n, C, H, W), preprocessed."""

    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: Tensor) -> Tensor:
        """See `Samples.take`."""
        return self.x[rows]


@dataclass(frozen=True)
class Task:
    """One task: N support and M query samples.

    Attributes:
        support: N samples.
        support_y: int64 (N,), labels 0..ways-1 in any order; classes may have different counts.
        query: M samples.
        query_y: int64 (M,).
        ways: number of classes.
        key: whatever is random within the task derives from it, so that runs resume exactly.

    Raises:
        ValueError: samples and labels that differ in number, or a class without a support sample.
    """

    support: Samples
    support_y: Tensor
    query: Samples
    query_y: Tensor
    ways: int
    key: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, samples, labels in (
            ("support", self.support, self.support_y),
            ("query", self.query, self.query_y),
        ):
            if tuple(labels.shape) != (len(samples),):
                raise ValueError(
                    f"{name}: expected one label per sample, ({len(samples)},), got {tuple(labels.shape)}"
                )
        counts = self.support_y.bincount(minlength=self.ways)
        if len(counts) > self.ways or not bool(counts.all()):
            found = ", ".join(map(str, counts.tolist()))
            raise ValueError(
                f"support: expected labels 0 to {self.ways - 1}, each at least once, got {found} samples of them"
            )
