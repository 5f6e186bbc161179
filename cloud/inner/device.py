"""Adaptation exactly as the device does it: per-sample attention, mean of gamma_n * g_n, frozen skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..outer.base import Meta, MethodConfig
from .network import Network

Selections = Sequence[Mapping[str, Tensor]]


@dataclass(frozen=True)
class Adapted:
    """What K steps on T tasks leave behind.

    Attributes:
        weights: every parameter by name; updated ones have a leading task dimension (T, ...), others none.
        losses: support loss before each step, (T, K).
        kept: per step, `LAYER.fw` or `LAYER.bw` -> bool (T, N, C), True where a channel was kept.
        benefit: alpha * <g, gamma * g>, the first-order loss decrease, (T, K, L).
    """

    weights: dict[str, Tensor]
    losses: Tensor
    kept: Selections
    benefit: Tensor


def adapt(
    network: Network,
    config: MethodConfig,
    meta: Meta,
    support_x: Tensor,
    support_y: Tensor,
    recorded: Selections | None = None,
) -> Adapted:
    """K inner steps on T tasks at once, in the dtype of its inputs (float64 makes it a reference).

    Args:
        network: the backbone.
        config: attention settings; the number of steps is that of meta.alpha.
        meta: where adaptation starts.
        support_x: (T, N, C, H, W).
        support_y: (T, N); logits at or above the largest label + 1 take part in the loss.
        recorded: channel selections to use instead of computing them (parity tests).
    """
    raise NotImplementedError


def query_logits(network: Network, adapted: Adapted, query_x: Tensor) -> Tensor:
    """Logits (T, M, ways) of adapted tasks on their queries (T, M, C, H, W)."""
    raise NotImplementedError
