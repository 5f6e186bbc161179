"""Which scores the method's settings ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .base import MethodConfig
from .constant_scores import ConstantScores
from .masked_maps import MaskedMaps
from .meta_attention import MetaAttention
from .network import Network
from .scores import NoScores, Scores

ATTENTION: Mapping[str, type[MetaAttention] | type[MaskedMaps]] = {
    "gradients": MetaAttention,
    "maps": MaskedMaps,
}
"""What attention multiplies, by `MethodConfig.attention_masks`."""


def scores_of(
    network: Network,
    config: MethodConfig,
    learned: Mapping[str, Tensor],
    layers: Sequence[int],
    caps: Mapping[str, int] | None = None,
) -> Scores:
    """The scores of some layers.

    Args:
        network: the backbone.
        config: attention settings.
        learned: attention parameters or channel step sizes.
        layers: indices of the layers that may be updated.
        caps: most kept channels by module key `LAYER.fw` or `LAYER.bw`.
    """
    if config.channel_alpha:
        return ConstantScores(network, learned, layers)
    if config.attention:
        return ATTENTION[config.attention_masks](network, config, learned, layers, caps)
    return NoScores(network)
