"""p-Meta: learned sparse step sizes decide which layers adapt, meta attention which of their channels."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from ..inner.attention import init_attention, slots
from ..inner.base import Meta, MethodConfig, Tasks
from ..inner.constant_scores import init_channels
from ..inner.network import Network
from ..lite import LiteConfig
from .base import MetaGradient
from .maml import UNROLLED, Maml
from .penalty import PENALTIES, layers_within

BENEFIT_MEMORY = 0.98
"""Share of the running benefit that one outer step keeps."""


class PMeta(Maml):
    """Outer loss = mean task loss + strength * sum c_l alpha[l,k]; alpha is clamped at 0 after every step.

    With penalty `peak`, layers are frozen for good once `prune_at` of training is done.
    """

    name: ClassVar[str] = "p-meta"
    paper: ClassVar[str] = "Qu et al., KDD 2022"
    summary: ClassVar[str] = (
        "adapts the channels and layers worth their memory; learns weights, steps, attention"
    )
    uses: ClassVar[frozenset[str]] = UNROLLED | {"penalty", "alpha_rate", "channel_alpha", "attention_masks"}

    def __init__(self, network: Network, config: MethodConfig, lite: LiteConfig = LiteConfig()) -> None:  # noqa: B008
        super().__init__(network, config, lite)
        self.config = config
        self._penalty = PENALTIES[config.penalty]
        if config.attention:
            slots(network.layers)  # refuses norms that attention cannot see
        if config.attention_masks == "maps" and (config.first_order or config.first_order_until > 0):
            raise ValueError(
                'attention_masks: "maps" is learned through second derivatives only; set first_order = false and '
                "first_order_until = 0"
            )
        if config.penalty == "peak":  # refuses a target that cannot be met now, not in the middle of training
            every = [True] * len(network.layers)
            layers_within(network.layers, every, [0.0] * len(every), config.target_fraction)

    def init(self, seed: int) -> Meta:
        """Weights, constant learned step sizes (K, L), and attention parameters from the seed or channel step sizes."""
        meta = super().init(seed)
        learned = {**meta.learned, "alpha": meta.alpha}
        layers = self.network.layers
        if self.config.attention:
            generator = torch.Generator().manual_seed(seed)
            learned |= init_attention(layers, self.config.attention_ratio, generator, [*self.config.rho])
        if self.config.channel_alpha:
            learned |= init_channels(layers)
        return Meta(learned, {"open": torch.ones(len(layers)), "benefit": torch.zeros(len(layers))})

    def meta_gradient(self, meta: Meta, tasks: Tasks, progress: float) -> MetaGradient:
        """Mean outer gradient over the tasks plus the penalty's, which starts after the warm-up."""
        result = self._outer_gradient(meta, tasks, progress)
        if progress < self.config.warmup_fraction:
            return result
        penalty = self.config.penalty_strength * self._penalty.gradient(self.network.layers, meta.alpha)
        grads = {**result.grads, "alpha": (result.grads["alpha"] + penalty) * meta.fixed["open"]}
        return replace(result, grads=grads)

    def after_step(self, meta: Meta, result: MetaGradient, progress: float) -> Meta:
        """Clamp alpha at 0, keep frozen layers at 0, follow the benefit, freeze layers when it is time."""
        benefit = BENEFIT_MEMORY * meta.fixed["benefit"] + (1 - BENEFIT_MEMORY) * result.benefit
        allowed = self._allowed(meta, benefit, progress)
        alpha = meta.alpha.clamp(min=0) * allowed
        return Meta({**meta.learned, "alpha": alpha}, {**meta.fixed, "open": allowed, "benefit": benefit})

    def eligible(self, meta: Meta, progress: float) -> bool:
        """Whether a state may be a run's result: with penalty `peak`, once the target fraction is met."""
        return self.config.penalty != "peak" or progress >= self.config.prune_at

    def _allowed(self, meta: Meta, benefit: Tensor, progress: float) -> Tensor:
        allowed = meta.fixed["open"]
        if self.config.penalty != "peak" or progress < self.config.prune_at:
            return allowed
        updated = ((meta.alpha > 0).any(0) & (allowed > 0)).tolist()
        mask = layers_within(self.network.layers, updated, benefit.tolist(), self.config.target_fraction)
        closed = [was and not now for was, now in zip(updated, mask, strict=True)]
        return allowed * (~torch.tensor(closed)).to(allowed)
