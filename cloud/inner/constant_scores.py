"""Channel-wise step sizes in place of attention: learned once, the same for every task (p-Meta, table 4, alpha_Ch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...edge.cost import Layer
from .attention import SIDES
from .network import Network
from .scores import Looked, NoScores, Pass, Scored

CHANNELS = "channels."
"""What the names of learned channel step sizes begin with."""


class ConstantScores(NoScores):
    """Learned step sizes of a layer's input and output channels, for all tasks and steps (p-Meta, table 4)."""

    def __init__(self, network: Network, learned: Mapping[str, Tensor], layers: Sequence[int]) -> None:
        super().__init__(network)
        self._vectors = {
            index: [learned[key] for key in channel_keys(network.layers[index])] for index in layers
        }

    def score(self, looked: Looked, of: Pass, recorded: Mapping[str, Tensor] | None = None) -> Scored:
        """The same for every task and sample."""
        spread = {
            index: [vector.expand(of.scored, len(vector)) for vector in vectors]
            for index, vectors in self._vectors.items()
            if vectors
        }
        return Scored({index: (fw, bw) for index, (fw, bw) in spread.items()}, {})


def channel_keys(layer: Layer) -> tuple[str, ...]:
    """Names of a layer's learned channel step sizes, input side first; the output layer has none."""
    return () if layer.is_output else tuple(f"{CHANNELS}{layer.name}.{side}" for side in SIDES)


def init_channels(layers: Sequence[Layer]) -> dict[str, Tensor]:
    """Ones (C,) for both sides of every layer but the output layer."""
    return {
        key: torch.ones(channels)
        for layer in layers
        for key, channels in zip(channel_keys(layer), (layer.channels_in, layer.channels_out), strict=False)
    }
