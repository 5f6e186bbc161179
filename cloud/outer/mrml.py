"""MRML: a task part of the network adapts, the shared part learns through the task part's solution."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from ..inner.base import Batch, Meta, MethodConfig, Tasks
from ..inner.network import Network
from ..lite import LiteConfig
from .base import ChunkSums, MetaGradient
from .gradient import mean_gradient
from .implicit import LowerLevel, implicit_sums
from .maml import Maml


class Mrml(Maml):
    """Memory-reduced meta-learning: implicit gradient of a shared/task split (our derivation from its abstract).

    The task part is the output layer, from u_0 = 0, or the layers that `task_layers` names, whose u_0 is
    learned too. The device takes the same K steps on the task part without the term mu/2 |u - u_0|^2.

    Raises:
        ValueError: `task_layers` names a layer that the network lacks, or a setting has no effect.
    """

    name: ClassVar[str] = "mrml"
    paper: ClassVar[str] = "Yang, Ma & Yu, AAAI 2025"
    summary: ClassVar[str] = "adapts the head or named layers; the rest learns by an implicit gradient"
    uses: ClassVar[frozenset[str]] = frozenset({"mu", "task_layers", "cg_steps"})

    def __init__(self, network: Network, config: MethodConfig, lite: LiteConfig = LiteConfig()) -> None:  # noqa: B008
        super().__init__(network, config, lite)
        names = [layer.name for layer in network.layers]
        for name in config.task_layers:
            if name not in names:
                raise ValueError(f"task_layers: no layer is called {name!r}; there are {', '.join(names)}")
        self._layers = tuple(
            index
            for index, layer in enumerate(network.layers)
            if (layer.name in config.task_layers if config.task_layers else layer.is_output)
        )
        self._zeros = () if config.task_layers else network.names(self._layers[0])

    def init(self, seed: int) -> Meta:
        """The backbone's weights, a head of zeros unless layers are named, step sizes in the task part only."""
        meta = super().init(seed)
        adapts = torch.zeros(len(self.network.layers)).index_fill(0, torch.tensor(self._layers), 1.0)
        zeros = {name: torch.zeros_like(meta.learned[name]) for name in self._zeros}
        return Meta({**meta.learned, **zeros}, {"alpha": meta.alpha * adapts})

    def meta_gradient(self, meta: Meta, tasks: Tasks, progress: float) -> MetaGradient:
        """Mean over tasks of the implicit gradient; exactly 0 for a head that starts at u_0 = 0."""
        return mean_gradient(self.config, meta, tasks, lambda part: self._sums(meta, part))

    def _sums(self, meta: Meta, batch: Batch) -> ChunkSums:
        lower = LowerLevel(self._layers, self.config.mu)
        result = implicit_sums(self.network, self.config, meta, batch, lower)
        zeros = {name: torch.zeros_like(result.grads[name]) for name in self._zeros}
        return replace(result, grads={**result.grads, **zeros})
