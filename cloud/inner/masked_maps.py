"""Attention that multiplies the maps themselves, not the weight gradients made of them (p-Meta, table 7).

Forward scores multiply what a layer sees and so change its output; backward scores multiply the output's gradient
and so change the gradients of all layers below. No inner gradient flows through the modules; the outer one does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from .attention import Attention, attended, gradient_input, limits
from .base import MethodConfig
from .kinds import LayerKind, Ran, pooled, spread
from .network import Network
from .ops import Wanted
from .scores import NoScores, Pass

Mask = Callable[[Tensor], Tensor]
"""From pooled rows (rows, C) to factors of the same shape."""


class MaskedMaps(NoScores):
    """Masks on the support set's forward and backward pass; queries are answered without."""

    def __init__(
        self,
        network: Network,
        config: MethodConfig,
        learned: Mapping[str, Tensor],
        layers: Sequence[int],
        caps: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(network)
        self._bw_input = config.bw_input
        keys = attended(network.layers, layers, config)
        most = limits(keys, config, caps)
        self._modules = {key: Attention(learned, [key], config.rho, most) for key in keys}
        self._hooks: list[RemovableHandle] = []

    def run(self, index: int, x: Tensor, weights: Sequence[Tensor], wanted: Wanted, of: Pass) -> Ran:
        """The layer on what it sees, masked."""
        kind, mask = self._network.kind(index), self._mask(index, "fw", of)
        if mask is None:
            return kind.forward(x, weights, wanted)
        return MASKED[self._network.layers[index].kind](kind, x, weights, wanted, mask)

    def pass_on(self, index: int, output: Tensor, of: Pass) -> Tensor:
        """The same values; on its way back the gradient is masked."""
        mask = self._mask(index, "bw", of)
        if mask is None:
            return output
        above = output.view_as(output)
        self._hook(above, _masked_gradient(mask, self._network.kind(index), self._bw_input, of))
        return above

    def release(self) -> None:
        """From here on gradients flow as if nothing were masked: the outer gradient's way back."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _hook(self, value: Any, change: Callable[[Tensor], Tensor]) -> None:
        self._hooks.append(value.register_hook(change))

    def _mask(self, index: int, side: str, of: Pass) -> Mask | None:
        key = f"{self._network.layers[index].name}.{side}"
        if key not in self._modules:
            return None

        def mask(p: Tensor) -> Tensor:
            (logits,) = self._modules[key].logits({key: p})
            found, _ = self._modules[key].gammas([of.mean(logits, axis=1) if of.averages else logits])
            gamma = found[key].repeat(of.samples, 1) if of.averages else found[key]
            if gamma.requires_grad:
                self._hook(gamma, torch.zeros_like)
            return gamma

        return mask


def _masked_gradient(mask: Mask, kind: LayerKind, bw_input: str, of: Pass) -> Callable[[Tensor], Tensor]:
    axis = kind.channel_axis
    return lambda g: g * spread(mask(gradient_input(pooled(g, axis) * of.own, bw_input)), g, axis)


def _on_input(kind: LayerKind, x: Tensor, weights: Sequence[Tensor], wanted: Wanted, mask: Mask) -> Ran:
    axis = kind.channel_axis
    return kind.forward(x * spread(mask(pooled(x, axis)), x, axis), weights, wanted)


def _on_normalised(kind: LayerKind, x: Tensor, weights: Sequence[Tensor], wanted: Wanted, mask: Mask) -> Ran:
    """y = w * (mask * x_hat) + b, from the plain layer's y."""
    plain, axis = kind.forward(x, weights, wanted), kind.channel_axis
    gamma = spread(mask(plain.pool()), x, axis)
    bias = weights[1].reshape(-1, x.shape[axis])
    shift = spread(bias.repeat(len(x) // len(bias), 1), x, axis)
    return Ran(shift + gamma * (plain.output - shift), lambda: gamma * plain.seen(), plain.pool)


MASKED: Mapping[str, Callable[[LayerKind, Tensor, Sequence[Tensor], Wanted, Mask], Ran]] = {
    "conv": _on_input,
    "fc": _on_input,
    "norm": _on_normalised,
}
"""How each kind of layer masks what it sees."""
