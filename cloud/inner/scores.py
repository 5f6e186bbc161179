"""What scales a layer's weight gradient channel by channel: the interface, and the one that scales nothing.

All of them answer with gamma = (fw, bw) for the layers that they scale, one row per task where a pass averages its
samples' scores (training), or one row per sample (the device). `variants.scores_of` chooses by the method's settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from .kinds import Ran
from .network import Network
from .ops import Wanted


@dataclass(frozen=True)
class Pass:
    """What a pass over rows n*T + t is.

    Attributes:
        tasks: T.
        samples: of each task in the pass.
        averages: scores are a mean over a task's samples, (T, C); else each sample has its own, (rows, C).
        own: factor that makes a row's gradient the one of its own sample's loss; a number, or of rows (rows, 1).
        count: 1 / weight of a row in its task's mean, likewise; none: the number of samples in the pass.
    """

    tasks: int
    samples: int
    averages: bool
    own: float | Tensor = 1.0
    count: float | Tensor | None = None

    @property
    def scored(self) -> int:
        """Rows of a score."""
        return self.tasks if self.averages else self.tasks * self.samples

    def mean(self, rows: Tensor, axis: int = 0) -> Tensor:
        """What the pass adds to each task's mean: values of rows on an axis, to T values there."""
        shape = (*rows.shape[:axis], self.samples, self.tasks, *rows.shape[axis + 1 :])
        count = self.samples if self.count is None else self.count
        if not isinstance(count, Tensor):
            return rows.reshape(shape).sum(axis) / count
        return (rows / count.reshape(-1, *(1,) * (rows.dim() - axis - 1))).reshape(shape).sum(axis)


Looked = tuple[Tensor, ...]
"""What scores are a function of, each (..., T or rows, C); where a pass averages, means over a task's samples."""


class Scored(NamedTuple):
    """gamma (fw, bw) by layer index, and the channels that attention kept by module key `LAYER.fw|bw`."""

    gammas: dict[int, tuple[Tensor, Tensor]]
    kept: dict[str, Tensor]


class Scores(Protocol):
    """The scores of some layers, in one inner step or in all."""

    watched: tuple[int, ...]
    """Layers whose output gradient `score` needs."""

    def run(self, index: int, x: Tensor, weights: Sequence[Tensor], wanted: Wanted, of: Pass) -> Ran:
        """Run a layer on support rows."""

    def pass_on(self, index: int, output: Tensor, of: Pass) -> Tensor:
        """What the layers above read; the gradient of `output` itself is what the layer's own gradients are made of."""

    def look(self, ran: Mapping[int, Ran], gradients: Mapping[int, Tensor], of: Pass) -> Looked:
        """What a backward pass shows.

        Args:
            ran: what the layers did.
            gradients: of the watched layers' outputs, as rows.
            of: the pass.
        """

    def score(self, looked: Looked, of: Pass, recorded: Mapping[str, Tensor] | None = None) -> Scored:
        """gamma of the layers whose weight gradients must still be scaled.

        Args:
            looked: what the pass, or several together, showed.
            of: the pass.
            recorded: selections of attention to use instead of computing them.
        """

    def release(self) -> None:
        """Called when the pass's gradients are there, before they are differentiated in turn."""


class NoScores:
    """Gradients count as they are."""

    watched: tuple[int, ...] = ()

    def __init__(self, network: Network) -> None:
        self._network = network

    def run(self, index: int, x: Tensor, weights: Sequence[Tensor], wanted: Wanted, of: Pass) -> Ran:
        """The plain layer."""
        return self._network.kind(index).forward(x, weights, wanted)

    def pass_on(self, index: int, output: Tensor, of: Pass) -> Tensor:
        """The output itself."""
        return output

    def look(self, ran: Mapping[int, Ran], gradients: Mapping[int, Tensor], of: Pass) -> Looked:
        """Nothing is needed."""
        return ()

    def score(self, looked: Looked, of: Pass, recorded: Mapping[str, Tensor] | None = None) -> Scored:
        """Nothing is scaled."""
        return Scored({}, {})

    def release(self) -> None:
        """Nothing to do."""
