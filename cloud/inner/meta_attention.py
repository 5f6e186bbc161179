"""Scores that attention modules compute for every task or sample anew (p-Meta, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .attention import SIDES, Attention, attended, gradient_input, limits
from .base import MethodConfig
from .kinds import Ran, pooled
from .network import Network
from .scores import Looked, NoScores, Pass, Scored


class MetaAttention(NoScores):
    """Scores from a module on the layer's input and one on its output's gradient (p-Meta, section 3.3)."""

    def __init__(
        self,
        network: Network,
        config: MethodConfig,
        learned: Mapping[str, Tensor],
        layers: Sequence[int],
        caps: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(network)
        self._config = config
        self._keys = attended(network.layers, layers, config)
        self.watched = tuple(sorted(set(self._keys.values())))
        self._attention = Attention(learned, list(self._keys), config.rho, limits(self._keys, config, caps))

    def look(self, ran: Mapping[int, Ran], gradients: Mapping[int, Tensor], of: Pass) -> Looked:
        """The modules' logits."""
        inputs = {key: self._input(key, ran, gradients, of) for key in self._keys}
        logits = self._attention.logits(inputs)
        return tuple(of.mean(rows, axis=1) for rows in logits) if of.averages else logits

    def score(self, looked: Looked, of: Pass, recorded: Mapping[str, Tensor] | None = None) -> Scored:
        """Both modules of every layer at once; a side that is switched off scores 1."""
        found, kept = self._attention.gammas(looked, recorded)
        gammas = {}
        for index in self.watched:
            ones = looked[0].new_ones(())
            fw, bw = (
                found.get(f"{self._network.layers[index].name}.{side}", ones.expand(of.scored, channels))
                for side, channels in zip(SIDES, self._channels(index), strict=True)
            )
            gammas[index] = (fw, bw)
        return Scored(gammas, kept)

    def _input(self, key: str, ran: Mapping[int, Ran], gradients: Mapping[int, Tensor], of: Pass) -> Tensor:
        index = self._keys[key]
        if key.endswith("fw"):
            return ran[index].pool()
        own = pooled(gradients[index], self._network.kind(index).channel_axis) * of.own
        return gradient_input(own, self._config.bw_input)

    def _channels(self, index: int) -> tuple[int, int]:
        layer = self._network.layers[index]
        return layer.channels_in, layer.channels_out
