"""LITE in the inner loop: exact steps, whose gradient passes through a few samples (Bronskill et al., NeurIPS 2021).

At every inner step, with an H_k of its own: g = gbar + g_H - detach(g_H), where gbar is the mean over all N support
samples without graph, in pieces, and g_H the mean over H_k with one; what attention averages over samples likewise.
Values are exact. Gradients are unbiased, as every path from a loss back to the weights sees a step once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..lite import LiteConfig, check_size, draw, generator_of
from .base import Batch, MethodConfig
from .network import Network
from .scores import Pass
from .unroll import Sums, Unroll, Weights, rows

SAMPLES_DRAWN = 0
"""What a task's draws for LITE are numbered with, before the step."""


class _Part(NamedTuple):
    """Some support samples of every task: what no step changes, answers, how they count."""

    known: dict[str, Tensor]
    answers: Tensor
    of: Pass


def unrolled(
    network: Network,
    config: MethodConfig,
    lite: LiteConfig,
    learned: Weights,
    open_layers: tuple[int, ...],
    batch: Batch,
    first_order: bool,
) -> Unroll:
    """The inner loop of a chunk of tasks, differentiated through all support samples or, with lite.h, through some."""
    if lite.h is None:
        return Unroll(network, config, learned, open_layers, batch, first_order, lite.query_batch)
    return LiteUnroll(network, config, lite, learned, open_layers, batch, first_order)


def refuse_lite(network: Network, config: MethodConfig, lite: LiteConfig) -> None:
    """Check that the inner loop can do what LITE asks for.

    Raises:
        ValueError: names the setting, and what to do.
    """
    if lite.checkpoint:
        raise ValueError(
            "lite.checkpoint: true has no effect on inner steps; set method.checkpoint_steps = true"
        )
    if lite.control_variate:
        raise ValueError(
            "lite.control_variate: true has no effect on inner steps, which see no queries; leave it away"
        )
    if lite.precision != "float32":
        raise ValueError(f'lite.precision: inner steps are computed in "float32", got {lite.precision!r}')
    if lite.h is None and lite.query_batch is None:
        return
    if any(network.kind(index).mixes_samples for index in range(len(network.layers))):
        raise ValueError(
            "lite.h, lite.query_batch: the backbone's BatchNorm has the statistics of the samples at hand, a part of "
            'them gives others; set architecture.norm = "group"'
        )
    if lite.h is not None and config.attention and config.attention_masks == "maps":
        raise ValueError(
            f'lite.h: {lite.h} does not go with attention_masks = "maps", where a sample\'s mask depends on all'
        )
    if lite.stratified and network.loss.name != "softmax-cross-entropy":
        raise ValueError("lite.stratified: true needs classes, these are regressions; set it to false")


class LiteUnroll(Unroll):
    """As `Unroll`; the memory of a graph is that of h samples, the rest grows with `lite.chunk`.

    Raises:
        ValueError: h is above the number of support samples, or the batch has no keys to draw with.
    """

    def __init__(
        self,
        network: Network,
        config: MethodConfig,
        lite: LiteConfig,
        learned: Weights,
        open_layers: tuple[int, ...],
        batch: Batch,
        first_order: bool,
    ) -> None:
        super().__init__(network, config, learned, open_layers, batch, first_order, lite.query_batch)
        assert lite.h is not None
        self._lite, self._h = lite, lite.h
        check_size(self._samples, self._h)
        if len(batch.keys) != len(batch):
            raise ValueError(
                f"lite.h: a batch of {len(batch)} tasks needs as many keys, got {len(batch.keys)}"
            )

    def _sums_at(self, weights: Weights, k: int) -> Sums:
        fixed = {name: value.detach() for name, value in weights.items()}
        first, *others = self._all
        exact = self._exact(fixed, first)
        for part in others:
            exact = _both(exact, self._exact(fixed, part))
        if self._first_order and not self._scores.watched:
            return exact  # no graph to make
        chosen = self._sums(weights, *self._drawn(k), graph=not self._first_order)
        return _both(exact, _zero_with_gradient(chosen))

    def _exact(self, weights: Weights, part: _Part) -> Sums:
        return _detached(self._sums(weights, *part, graph=False))

    @cached_property
    def _all(self) -> list[_Part]:
        """All support samples, `lite.chunk` of each task at a time."""
        size = self._lite.chunk or self._samples
        images, answers = (
            torch.split(whole, size, 1) for whole in (self._batch.support_x, self._batch.support_y)
        )
        with torch.no_grad():
            known = [self._prefix(part) for part in images]
        return [
            _Part(values, rows(true), self._of(true.shape[1], self._samples))
            for values, true in zip(known, answers, strict=True)
        ]

    def _drawn(self, k: int) -> _Part:
        """H of step k."""
        batch, stratified = self._batch, self._lite.stratified
        subsets = [
            draw(self._samples, self._h, generator_of(key, SAMPLES_DRAWN, k), labels if stratified else None)
            for key, labels in zip(batch.keys, batch.support_y.cpu(), strict=True)
        ]
        chosen = torch.stack([subset.rows for subset in subsets]).to(batch.support_x.device)
        task = torch.arange(len(batch), device=chosen.device).unsqueeze(1)
        count: float | Tensor = self._h
        if stratified:
            scale = torch.stack([subset.scale for subset in subsets], 1).reshape(-1, 1)
            count = self._samples / scale.to(batch.support_x)
        images, answers = batch.support_x[task, chosen], batch.support_y[task, chosen]
        return _Part(self._prefix(images), rows(answers), self._of(self._h, count))


def _detached(sums: Sums) -> Sums:
    return Sums(
        sums.losses.detach(),
        {name: value.detach() for name, value in sums.plain.items()},
        {name: value.detach() for name, value in sums.scaled.items()},
        tuple(value.detach() for value in sums.looked),
    )


def _zero_with_gradient(sums: Sums) -> Sums:
    """x - detach(x), exactly 0."""
    fixed = _detached(sums)
    return Sums(
        sums.losses - fixed.losses,
        {name: value - fixed.plain[name] for name, value in sums.plain.items()},
        {name: value - fixed.scaled[name] for name, value in sums.scaled.items()},
        tuple(value - other for value, other in zip(sums.looked, fixed.looked, strict=True)),
    )


def _both(one: Sums, other: Sums) -> Sums:
    def added(values: Weights, more: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value + more[name] for name, value in values.items()}

    return Sums(
        one.losses + other.losses,
        added(one.plain, other.plain),
        added(one.scaled, other.scaled),
        tuple(value + more for value, more in zip(one.looked, other.looked, strict=True)),
    )
