"""MAML: every layer adapts with one fixed step size; the initial weights are learned."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import torch

from ..inner.base import Meta, MethodConfig, Tasks
from ..inner.constant_scores import CHANNELS
from ..inner.lite_unroll import refuse_lite
from ..inner.network import Network
from ..lite import LiteConfig
from .base import LITE, MetaGradient, refuse_unused
from .compiled import refuse_compilation
from .gradient import OuterGradient

UNROLLED = frozenset(
    {"first_order", "first_order_until", "multi_step_until", "checkpoint_steps", "compile_steps", LITE}
)
"""Settings of the methods that differentiate through the inner steps."""


class Maml:
    """Second order, or first order (FOMAML) with `first_order = true`; attention is switched off.

    Raises:
        ValueError: a setting that the method does not take is not at its default, or LITE's ask for what inner
            steps cannot do.
    """

    name: ClassVar[str] = "maml"
    paper: ClassVar[str] = "Finn et al., ICML 2017"
    summary: ClassVar[str] = "adapts all layers with one fixed step size; learns the initial weights"
    uses: ClassVar[frozenset[str]] = UNROLLED

    def __init__(self, network: Network, config: MethodConfig, lite: LiteConfig = LiteConfig()) -> None:  # noqa: B008
        refuse_unused(type(self), config, lite)
        refuse_lite(network, config, lite)
        refuse_compilation(config, lite)
        self.network, self.lite = network, lite
        self.config = replace(config, attention=False)

    def init(self, seed: int) -> Meta:
        """The backbone's weights and a constant (K, L) table of step sizes."""
        shape = (self.config.inner_steps, len(self.network.layers))
        return Meta(self.network.weights(), {"alpha": torch.full(shape, self.config.inner_step_size)})

    def meta_gradient(self, meta: Meta, tasks: Tasks, progress: float) -> MetaGradient:
        """Mean outer gradient over the batch's tasks."""
        return self._outer_gradient(meta, tasks, progress)

    def after_step(self, meta: Meta, result: MetaGradient, progress: float) -> Meta:
        """Nothing to project."""
        return meta

    def param_groups(self, meta: Meta, lr: float) -> list[dict[str, Any]]:
        """One Adam group at rate lr; what is learned of step sizes, in groups at alpha_rate of where it starts."""
        rates = {name: self._rate(name, lr) for name in meta.learned}
        groups = {rate: [name for name in rates if rates[name] == rate] for rate in rates.values()}
        return [
            {"names": names, "params": [meta.learned[name] for name in names], "lr": rate}
            for rate, names in groups.items()
        ]

    @cached_property
    def _outer_gradient(self) -> OuterGradient:
        return OuterGradient(self.network, self.config, self.lite)

    def _rate(self, name: str, lr: float) -> float:
        if name == "alpha":
            return self.config.alpha_rate * self.config.inner_step_size
        return self.config.alpha_rate if name.startswith(CHANNELS) else lr
