"""What conv, fc and norm layers do: run on many tasks, take attention, give the device's gradients.

Rows are ordered n*T + t (see `ops`). `seen` is what the forward attention module looks at and what the weight
gradient is made of: the layer's input, for norm layers the normalised input. Weights are (weight,) or
(weight, bias), shared or with a leading task dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from . import ops
from .batch_norm import batch_norm, normalised_rows
from .group_norm import group_norm, pooled_normalised
from .norm_pool import norm_pool
from .pool import Size

Weights = Sequence[Tensor]


class Ran(NamedTuple):
    """A layer's output rows; its `seen` rows, and `seen` pooled to (rows, C), made when asked for."""

    output: Tensor
    seen: Callable[[], Tensor]
    pool: Callable[[], Tensor]


class LayerKind(Protocol):
    """One layer's arithmetic, bound to its torch module's geometry."""

    channel_axis: int
    mixes_samples: bool
    """Whether a sample's output depends on the task's other samples; such a layer takes weights per task only."""

    def forward(self, x: Tensor, weights: Weights, wanted: ops.Wanted) -> Ran:
        """Run on input rows x."""

    def scale(self, grads: Weights, fw: Tensor, bw: Tensor) -> list[Tensor]:
        """gamma * g for per-task gradients (T, ...), fw (T, C_in), bw (T, C_out)."""

    def gradient(self, seen: Tensor, gy: Tensor, weights: Weights) -> list[Tensor]:
        """Sum over samples of dL_n/dw in the per-task shapes of weights; differentiable once.

        With seen scaled by fw_n and gy by bw_n this is sum_n gamma_n * g_n (p-Meta, section 3.3).
        """


def _optional(weights: Weights) -> Tensor | None:
    return weights[1] if len(weights) > 1 else None


def _scaled_bias(grads: Weights, bw: Tensor) -> list[Tensor]:
    return [grad * bw for grad in grads[1:]]


class ConvKind:
    """2-d convolution; gamma[b, a'] = bw[b] * fw[floor(b*G/C_out)*C_in/G + a'] for G groups."""

    channel_axis = 1
    mixes_samples = False

    def __init__(self, part: nn.Conv2d) -> None:
        self.geometry = ops.Geometry.of(part)
        per_group = part.in_channels // part.groups
        group = torch.arange(part.out_channels) * part.groups // part.out_channels
        self.source = group[:, None] * per_group + torch.arange(per_group)

    def forward(self, x: Tensor, weights: Weights, wanted: ops.Wanted) -> Ran:
        """Run on input rows x."""
        y = ops.conv(x, weights[0], _optional(weights), self.geometry, wanted)
        return Ran(y, lambda: x, lambda: pooled(x, self.channel_axis))

    def scale(self, grads: Weights, fw: Tensor, bw: Tensor) -> list[Tensor]:
        """Multiply per-task gradients by gamma."""
        spread = fw[:, None, :] if self.geometry.groups == 1 else fw[:, self.source.to(fw.device)]
        gamma = bw[:, :, None] * spread
        return [grads[0] * gamma[..., None, None], *_scaled_bias(grads, bw)]

    def gradient(self, seen: Tensor, gy: Tensor, weights: Weights) -> list[Tensor]:
        """Sum the gradient over samples."""
        grads = [ops.conv_weight_gradient(seen, gy, weights[0], self.geometry)]
        rows = gy.reshape(-1, *weights[0].shape[:2], *gy.shape[2:])
        return grads + [rows.sum((0, 3, 4)) for _ in weights[1:]]


class FcKind:
    """Fully connected layer on the last axis; other axes between are pooled like pixels."""

    channel_axis = -1
    mixes_samples = False

    def forward(self, x: Tensor, weights: Weights, wanted: ops.Wanted) -> Ran:
        """Run on input rows x."""
        y = ops.linear(x, weights[0], _optional(weights))
        return Ran(y, lambda: x, lambda: pooled(x, self.channel_axis))

    def scale(self, grads: Weights, fw: Tensor, bw: Tensor) -> list[Tensor]:
        """Multiply per-task gradients by gamma."""
        return [grads[0] * (bw[:, :, None] * fw[:, None, :]), *_scaled_bias(grads, bw)]

    def gradient(self, seen: Tensor, gy: Tensor, weights: Weights) -> list[Tensor]:
        """Sum the gradient over samples."""
        tasks, outputs, inputs = weights[0].shape
        rows = gy.reshape(-1, tasks, gy[0].numel() // outputs, outputs)
        grad = torch.einsum("ntpo,ntpf->tof", rows, seen.reshape(*rows.shape[:3], inputs))
        return [grad, *(rows.sum((0, 2)) for _ in weights[1:])]


class NormKind:
    """GroupNorm; its weight's gradient is the sum of gy times the normalised input."""

    channel_axis = 1
    mixes_samples = False

    def __init__(self, part: nn.GroupNorm) -> None:
        self.groups, self.eps = part.num_groups, part.eps

    def forward(self, x: Tensor, weights: Weights, wanted: ops.Wanted) -> Ran:
        """Run on input rows x."""
        y, mean, r = group_norm(x, weights[0], weights[1], self.groups, self.eps)
        x_hat = partial(nn.functional.group_norm, x, self.groups, eps=self.eps)
        return Ran(y, x_hat, lambda: pooled_normalised(x, mean, r))

    def scale(self, grads: Weights, fw: Tensor, bw: Tensor) -> list[Tensor]:
        """Multiply per-task gradients by gamma."""
        return [grads[0] * fw * bw, *_scaled_bias(grads, bw)]

    def gradient(self, seen: Tensor, gy: Tensor, weights: Weights) -> list[Tensor]:
        """Sum the gradient over samples."""
        shape = (-1, *weights[0].shape, gy[0, 0].numel())
        rows = gy.reshape(shape)
        return [torch.linalg.vecdot(rows, seen.reshape(shape)).sum(0), rows.sum((0, 3))]


class BatchNormKind(NormKind):
    """BatchNorm over the samples that it is run on, in training as in evaluation."""

    mixes_samples = True

    def __init__(self, part: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        self.eps = part.eps

    def forward(self, x: Tensor, weights: Weights, wanted: ops.Wanted) -> Ran:
        """Run on input rows x; weights (T, C)."""
        x_hat = partial(normalised_rows, x, len(weights[0]), self.eps)
        y = batch_norm(x, weights[0], weights[1], self.eps)
        return Ran(y, x_hat, lambda: pooled(x_hat(), self.channel_axis))


class NormPoolKind(NormKind):
    """GroupNorm and the max-pool after it; the output is the pooled map, so nothing can watch the norm's own."""

    def __init__(self, part: nn.GroupNorm, window: Size) -> None:
        super().__init__(part)
        self.window = window

    def forward(self, x: Tensor, weights: Weights, wanted: ops.Wanted) -> Ran:
        """Run on input rows x."""
        y, mean, r = norm_pool(x, weights[0], weights[1], self.groups, self.eps, self.window)
        x_hat = partial(nn.functional.group_norm, x, self.groups, eps=self.eps)
        return Ran(y, x_hat, lambda: pooled_normalised(x, mean, r))


def layer_kind(part: nn.Module) -> LayerKind:
    """The arithmetic of a conv, linear, GroupNorm or BatchNorm module."""
    if isinstance(part, nn.Conv2d):
        return ConvKind(part)
    if isinstance(part, nn.GroupNorm):
        return NormKind(part)
    if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
        return BatchNormKind(part)
    return FcKind()


def pooled(rows: Tensor, channel_axis: int) -> Tensor:
    """Mean over all axes but rows and channels: (B, C)."""
    axes = [axis for axis in range(1, rows.dim()) if axis != channel_axis % rows.dim()]
    return rows.mean(axes) if axes else rows


def scaled_gradient(
    kind: LayerKind, seen: Tensor, gy: Tensor, weights: Weights, gammas: Weights
) -> list[Tensor]:
    """Sum over samples of gamma_n * g_n; gammas = (fw, bw), one row per sample (rows, C)."""
    fw, bw = (spread(gamma, rows, kind.channel_axis) for gamma, rows in zip(gammas, (seen, gy), strict=True))
    return kind.gradient(seen * fw, gy * bw, weights)


def spread(gamma: Tensor, rows: Tensor, channel_axis: int) -> Tensor:
    """(rows, C) shaped to multiply rows along their channel axis."""
    shape = [gamma.shape[0]] + [1] * (rows.dim() - 1)
    shape[channel_axis] = gamma.shape[1]
    return gamma.reshape(shape)
