"""Meta attention (p-Meta, section 3.3): per layer one module on the input, one on the output's gradient.

A module is: pooled channels p (rows, C) -> fc C x H -> ReLU -> fc H x C -> softmax pi -> clip-and-normalise.
Its parameters are `attention.LAYER.fw|bw.hidden|out.weight|bias`; modules of equal width run as one product.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...edge.cost import Layer, kept_bound
from .base import MethodConfig

SIDES = ("fw", "bw")
PARTS = ("hidden.weight", "hidden.bias", "out.weight", "out.bias")


def slots(layers: Sequence[Layer]) -> dict[str, int]:
    """Channels of every attention module by key `LAYER.fw` or `LAYER.bw`; the output layer has none.

    Raises:
        ValueError: a norm layer with one channel per group, whose pooled input is always 0.
    """
    found: dict[str, int] = {}
    for layer in layers:
        if layer.kind == "norm" and layer.groups == layer.channels_in:
            raise ValueError(
                f"attention: layer {layer.name} needs more than one channel per group, "
                f"got {layer.groups} groups of {layer.channels_in} channels; use fewer groups"
            )
        if not layer.is_output:
            found |= {f"{layer.name}.fw": layer.channels_in, f"{layer.name}.bw": layer.channels_out}
    return found


def init_attention(
    layers: Sequence[Layer], ratio: int, generator: torch.Generator, sides: Sequence[str] = SIDES
) -> dict[str, Tensor]:
    """Parameters of all modules of these sides, hidden width max(1, C // ratio), uniform in +-1/sqrt(inputs)."""
    params: dict[str, Tensor] = {}
    own = {key: channels for key, channels in slots(layers).items() if key.rsplit(".", 1)[1] in sides}
    for key, channels in own.items():
        hidden = max(1, channels // ratio)
        shapes = ((hidden, channels), (hidden,), (channels, hidden), (channels,))
        for part, shape, fan_in in zip(PARTS, shapes, (channels, channels, hidden, hidden), strict=True):
            uniform = torch.rand(shape, generator=generator)
            params[f"attention.{key}.{part}"] = (2 * uniform - 1) / math.sqrt(fan_in)
    return params


def attended(layers: Sequence[Layer], chosen: Iterable[int], config: MethodConfig) -> dict[str, int]:
    """Layer index by module key `LAYER.fw` or `LAYER.bw`, of the chosen layers that attention scales."""
    own = [index for index in chosen if config.attention and not layers[index].is_output]
    return {f"{layers[index].name}.{side}": index for index in own for side in config.rho}


def limits(
    keys: Iterable[str], config: MethodConfig, caps: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Most kept channels by module key: the method's cap for forward attention, lowered by `caps`."""
    found = dict(caps or {})
    if config.cap is not None:
        found |= {key: min(config.cap, found.get(key, config.cap)) for key in keys if key.endswith(".fw")}
    return found


def select(pi: Tensor, rho: float | Tensor, bound: int | Tensor) -> Tensor:
    """Which channels clipping keeps, bool like pi (..., C).

    Drops the smallest count of ascending entries whose sum reaches rho (none for rho = 0), at least C - bound
    (`kept_bound`), at most C - 1; sorting is stable, so ties drop the lower index.
    """
    channels = pi.shape[-1]
    values, order = pi.detach().sort(dim=-1, stable=True)
    reached = torch.as_tensor(rho, dtype=pi.dtype, device=pi.device)
    count = ((values.cumsum(-1) < reached).sum(-1, keepdim=True) + 1) * (reached > 0)
    count = torch.minimum(torch.maximum(count, channels - torch.as_tensor(bound)), torch.tensor(channels - 1))
    kept = torch.arange(channels, device=pi.device) >= count
    return torch.zeros_like(pi, dtype=torch.bool).scatter_(-1, order, kept.expand_as(order))


def clip_and_normalise(pi: Tensor, kept: Tensor) -> Tensor:
    """gamma (..., C): kept entries of pi renormalised to sum C; its gradient is that of C * pi."""
    channels = pi.shape[-1]
    fixed = torch.where(kept, pi.detach(), 0)
    fixed = channels * fixed / fixed.sum(-1, keepdim=True)
    dense = channels * pi
    return dense + (fixed - dense).detach()


def gradient_input(pooled: Tensor, kind: str) -> Tensor:
    """What a bw module sees of the pooled own-loss gradient (rows, C): divided by its rms, or raw."""
    if kind == "raw":
        return pooled
    rms = pooled.detach().square().mean(-1, keepdim=True).sqrt()
    return pooled / (rms + 1e-12)


@dataclass(frozen=True)
class _Stack:
    """Modules of one width: parameters and clipping limits with a leading module axis."""

    keys: tuple[str, ...]
    params: tuple[Tensor, ...]
    rho: Tensor
    bound: Tensor

    def logits(self, p: Tensor) -> Tensor:
        w1, b1, w2, b2 = self.params
        hidden = torch.baddbmm(b1.unsqueeze(1), p, w1.mT).relu()
        return torch.baddbmm(b2.unsqueeze(1), hidden, w2.mT)


class Attention:
    """The attention modules of some layers, stacked by width; differentiable in their parameters.

    Args:
        params: a mapping that holds the modules' parameters.
        keys: the modules to run.
        rho: clipping share per side, e.g. {"fw": .3, "bw": 0}.
        caps: most kept channels per module key; modules not named keep what rho gives.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        keys: Sequence[str],
        rho: Mapping[str, float],
        caps: Mapping[str, int] | None = None,
    ) -> None:
        groups: dict[torch.Size, list[str]] = defaultdict(list)
        for key in keys:
            groups[params[f"attention.{key}.hidden.weight"].shape].append(key)
        self._stacks = [_stack(params, group, rho, caps or {}) for group in groups.values()]

    def logits(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Logits of every sample, (modules, N*T, C) of each width, from pooled inputs (N*T, C) by module key."""
        return tuple(stack.logits(torch.stack([inputs[key] for key in stack.keys])) for stack in self._stacks)

    def gammas(
        self, logits: Sequence[Tensor], recorded: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """gamma and the kept channels (bool) by module key.

        Args:
            logits: as `logits` gives them, or means over samples: of each width (modules, rows, C).
            recorded: selections to use instead of computing them.
        """
        gammas: dict[str, Tensor] = {}
        selections: dict[str, Tensor] = {}
        for stack, found in zip(self._stacks, logits, strict=True):
            pi = found.softmax(-1)
            if recorded is None:
                kept = select(pi, stack.rho, stack.bound)
            else:
                kept = torch.stack([recorded[key] for key in stack.keys])
            gammas |= zip(stack.keys, clip_and_normalise(pi, kept), strict=True)
            selections |= zip(stack.keys, kept, strict=True)
        return gammas, selections


def _stack(
    params: Mapping[str, Tensor], keys: Sequence[str], rho: Mapping[str, float], caps: Mapping[str, int]
) -> _Stack:
    stacked = tuple(torch.stack([params[f"attention.{key}.{part}"] for key in keys]) for part in PARTS)
    weight = stacked[0]
    shares = [rho[key.rsplit(".", 1)[1]] for key in keys]
    bounds = [
        kept_bound(weight.shape[-1], share, caps.get(key)) for key, share in zip(keys, shares, strict=True)
    ]
    column = (len(keys), 1, 1)
    return _Stack(
        tuple(keys),
        stacked,
        torch.tensor(shares, dtype=weight.dtype, device=weight.device).reshape(column),
        torch.tensor(bounds, device=weight.device).reshape(column),
    )
