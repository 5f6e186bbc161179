"""What a network's outputs mean, scores of classes or values of a function: the loss, and what is reported of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

RowsTo = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss of the inner and outer loop, with the metric that people are told.

    Attributes:
        name: as a bundle's manifest says it (docs/bundle.md).
        of_rows: outputs (rows, outputs) and what is true of them -> loss of each row (rows,), differentiable.
            True are labels, int64 (rows,), or targets, float (rows, outputs).
        metric: name of the metric in files: `accuracy`, `validation_accuracy`, ...
        metric_of_rows: the metric of each row (rows,), as `of_rows`; a task's is the mean over its rows.
        words: the metric for people.
        percent: whether people are told the metric in per cent.
        higher_is_better: whether the best state is the one with the highest metric.
    """

    name: str
    of_rows: RowsTo
    metric: str
    metric_of_rows: RowsTo
    words: str
    percent: bool
    higher_is_better: bool

    def better(self, value: float, other: float) -> bool:
        """Whether a value of the metric is better than another one."""
        return value > other if self.higher_is_better else value < other

    def text(self, value: float) -> str:
        """A value of the metric, or of its interval, for people."""
        return f"{value:.2%}" if self.percent else f"{value:.4g}"


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(-1) == labels).to(logits.dtype)


def _squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over a row's outputs of (output - target)^2."""
    return (outputs - targets).square().flatten(1).mean(1)


CROSS_ENTROPY = Loss("softmax-cross-entropy", _cross_entropy, "accuracy", _hits, "accuracy", True, True)
SQUARED_ERROR = Loss(
    "mean-squared-error", _squared_error, "mse", _squared_error, "mean squared error", False, False
)
LOSSES: Mapping[str, Loss] = {loss.name: loss for loss in (CROSS_ENTROPY, SQUARED_ERROR)}
