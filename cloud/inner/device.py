"""Adaptation as the device does it: per-sample attention, mean of gamma_n * g_n, frozen layers skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import SIDES, Attention, attended, gradient_input, limits
from .base import Meta, MethodConfig
from .kinds import Ran, pooled, scaled_gradient
from .network import LayerCall, Network
from .ops import Wanted
from .unroll import rows, task_losses

Selections = Sequence[Mapping[str, Tensor]]
Caps = Sequence[Mapping[str, int]]
FROZEN = Wanted(input=True, weight=False)


@dataclass(frozen=True)
class Adapted:
    """What K steps on T tasks leave behind.

    Attributes:
        weights: every parameter by name; those of updated layers have a leading task dimension (T, ...).
        losses: support loss before each step, (T, K).
        kept: per step, `LAYER.fw` or `LAYER.bw` -> bool (T, N, C), True where a channel was kept.
        benefit: alpha * <g, gamma * g>, the first-order loss decrease, (T, K, L).
    """

    weights: dict[str, Tensor]
    losses: Tensor
    kept: Selections
    benefit: Tensor


@dataclass(frozen=True)
class _Pass:
    """One forward and backward pass: what the layers saw, and their own-loss output gradients, as rows."""

    losses: Tensor
    seen: dict[int, Tensor]
    gradients: dict[int, Tensor]


@torch.no_grad()
def adapt(
    network: Network,
    config: MethodConfig,
    meta: Meta,
    support_x: Tensor,
    support_y: Tensor,
    recorded: Selections | None = None,
    caps: Caps | None = None,
) -> Adapted:
    """K inner steps on T tasks at once, in the dtype of its inputs (float64 makes it a reference).

    Args:
        network: the backbone.
        config: attention settings; the number of steps is that of meta.alpha.
        meta: where adaptation starts.
        support_x: (T, N, C, H, W).
        support_y: labels in [0, ways), int64 (T, N), or targets, float (T, N, outputs).
        recorded: channel selections to use instead of computing them (parity tests).
        caps: per step, the most kept channels by module key `LAYER.fw` or `LAYER.bw`.
    """
    device = _Device(network, config, meta, support_x, support_y)
    weights, losses, kept, benefits = device.weights, [], [], []
    for k in range(len(meta.alpha)):
        attention = device.attention(k, caps[k] if caps else None)
        before = device.backward(weights, k)
        gammas, selected = attention.gammas(device.attention_inputs(before, k), None, _rows(recorded, k))
        weights, benefit = device.update(weights, k, before, gammas)
        losses.append(before.losses)
        kept.append({key: _tasks(value, support_y) for key, value in selected.items()})
        benefits.append(benefit)
    return Adapted(weights, torch.stack(losses, 1), kept, torch.stack(benefits, 1))


def query_logits(network: Network, adapted: Adapted, query_x: Tensor) -> Tensor:
    """Outputs (T, M, outputs) of adapted tasks on their queries (T, M, C, H, W); not differentiable."""

    def call(index: int, x: Tensor) -> Tensor:
        values = [adapted.weights[name] for name in network.names(index)]
        return network.kind(index).forward(x, values, FROZEN).output

    with torch.no_grad():
        (logits,) = network.run({network.source: rows(query_x)}, call)
    return logits.reshape(query_x.shape[1], query_x.shape[0], -1).transpose(0, 1)


def _rows(recorded: Selections | None, k: int) -> dict[str, Tensor] | None:
    return None if recorded is None else {key: rows(value) for key, value in recorded[k].items()}


def _tasks(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(like.shape[1], like.shape[0], -1).transpose(0, 1)


class _Device:
    """T tasks on the device: everything below the layers that any step updates is computed once."""

    def __init__(self, network: Network, config: MethodConfig, meta: Meta, x: Tensor, y: Tensor) -> None:
        self._network, self._config, self._meta = network, config, meta
        self._tasks, self._samples = y.shape[:2]
        self._answers = rows(y)
        updated = torch.nonzero(meta.updated).flatten().tolist()
        self.weights = {name: meta.learned[name] for name in network.parameters}
        for name in (name for index in updated for name in network.names(index)):
            self.weights[name] = self.weights[name].expand(self._tasks, *self.weights[name].shape)
        frontier = network.frontier(updated) or (network.source,)
        prefix = network.run({network.source: rows(x)}, self._call(self.weights, (), {}), frontier)
        self._known = dict(zip(frontier, prefix, strict=True))

    def backward(self, weights: Mapping[str, Tensor], k: int) -> _Pass:
        """Own-loss gradients of the outputs of the layers that step k updates."""
        ran: dict[int, Ran] = {}
        updated = self._updated(k)
        with torch.enable_grad():
            (logits,) = self._network.run(self._known, self._call(weights, updated, ran))
            total = self._network.loss.of_rows(logits, self._answers).sum()
        grads = torch.autograd.grad(total, [ran[i].output for i in updated]) if updated else ()
        losses = task_losses(self._network.loss, logits.detach(), self._answers, self._tasks)
        seen = {i: ran[i].seen().detach() for i in updated}
        return _Pass(losses, seen, dict(zip(updated, grads, strict=True)))

    def attention(self, k: int, caps: Mapping[str, int] | None) -> Attention:
        """The modules that step k runs."""
        rho = {"fw": self._config.rho_fw, "bw": self._config.rho_bw}
        keys = list(self._keys(k))
        return Attention(self._meta.learned, keys, rho, limits(keys, self._config, caps))

    def attention_inputs(self, found: _Pass, k: int) -> dict[str, Tensor]:
        """Pooled inputs of step k's modules, (N*T, C)."""
        inputs: dict[str, Tensor] = {}
        for key, index in self._keys(k).items():
            axis = self._network.kind(index).channel_axis
            if key.endswith("fw"):
                inputs[key] = pooled(found.seen[index], axis)
            else:
                inputs[key] = gradient_input(pooled(found.gradients[index], axis), self._config.bw_input)
        return inputs

    def update(
        self, weights: Mapping[str, Tensor], k: int, found: _Pass, gammas: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """w <- w - alpha * mean_n(gamma_n * g_n), and the benefit (T, L)."""
        changed = dict(weights)
        benefit = found.losses.new_zeros(self._tasks, len(self._network.layers))
        for index in self._updated(k):
            names, alpha = self._network.names(index), self._meta.alpha[k, index]
            plain, scaled = self._gradients(index, weights, found, gammas)
            for name, g, change in zip(names, plain, scaled, strict=True):
                changed[name] = weights[name] - alpha * change
                benefit[:, index] += alpha * (g * change).flatten(1).sum(1)
        return changed, benefit

    def _gradients(
        self, index: int, weights: Mapping[str, Tensor], found: _Pass, gammas: Mapping[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """mean_n g_n and mean_n gamma_n * g_n of one layer's parameters, per task."""
        kind = self._network.kind(index)
        values = [weights[name] for name in self._network.names(index)]
        seen, gy = found.seen[index], found.gradients[index] / self._samples
        plain = scaled = kind.gradient(seen, gy, values)
        name = self._network.layers[index].name
        if f"{name}.fw" in gammas:
            scaled = scaled_gradient(kind, seen, gy, values, [gammas[f"{name}.{side}"] for side in SIDES])
        return plain, scaled

    def _updated(self, k: int) -> list[int]:
        return torch.nonzero(self._meta.alpha[k]).flatten().tolist()

    def _keys(self, k: int) -> dict[str, int]:
        return attended(self._network.layers, self._updated(k), self._config)

    def _call(
        self,
        weights: Mapping[str, Tensor],
        watched: Sequence[int],
        ran: dict[int, Ran],
    ) -> LayerCall:
        def call(index: int, x: Tensor) -> Tensor:
            values = [weights[name] for name in self._network.names(index)]
            ran[index] = self._network.kind(index).forward(x, values, FROZEN)
            y = ran[index].output
            return y if y.requires_grad or index not in watched else y.requires_grad_()

        return call
