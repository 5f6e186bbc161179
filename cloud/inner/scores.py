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
        averages: scores are a mean over the pass's samples, (T, C); else each sample has its own, (rows, C).
        own: factor that makes a row's gradient the one of its own sample's loss.
    """

    tasks: int
    samples: int
    averages: bool
    own: float = 1.0

    @property
    def scored(self) -> int:
        """Rows of a score."""
        return self.tasks if self.averages else self.tasks * self.samples


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

    def score(
        self,
        ran: Mapping[int, Ran],
        gradients: Mapping[int, Tensor],
        of: Pass,
        recorded: Mapping[str, Tensor] | None = None,
    ) -> Scored:
        """gamma of the layers whose weight gradients must still be scaled, after a backward pass.

        Args:
            ran: what the layers did.
            gradients: of the watched layers' outputs, as rows.
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

    def score(
        self,
        ran: Mapping[int, Ran],
        gradients: Mapping[int, Tensor],
        of: Pass,
        recorded: Mapping[str, Tensor] | None = None,
    ) -> Scored:
        """Nothing is scaled."""
        return Scored({}, {})

    def release(self) -> None:
        """Nothing to do."""
