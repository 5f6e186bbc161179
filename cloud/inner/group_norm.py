"""GroupNorm with per-task scale and shift, differentiable twice in few passes over the map.

Layout as in `ops`: row n*T + t is sample n of task t, so T tasks with scales of their own are one GroupNorm
over T*C channels and T*G groups. The second derivatives are linear combinations of three maps (input, output
gradient, its gradient) whose coefficients are sums per row and channel: each map is read a few times.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Context = Any


class Normed(NamedTuple):
    """Output rows (N*T, C, ...), and mean and 1/sigma of each row's groups (N*T, G), not differentiable."""

    output: Tensor
    mean: Tensor
    r: Tensor


def group_norm(x: Tensor, w: Tensor, b: Tensor, groups: int, eps: float) -> Normed:
    """Normalise rows x (N*T, C, ...), then scale and shift by w and b, (T, C) or shared (C,)."""
    y, mean, r = _norm(x, w, b, groups, eps)
    return Normed(y, mean.reshape(len(x), groups), r.reshape(len(x), groups))


def pooled_normalised(x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """Mean over pixels of the normalised rows, (N*T, C); differentiable once, by the outer pass."""
    y: Tensor = _pooled(x, mean, r)
    return y


def _wide(x: Tensor, w: Tensor) -> Tensor:
    """Rows as (N, T*C, pixels)."""
    return x.reshape(-1, w.numel(), x[0, 0].numel())


def _sums(a: Tensor, b: Tensor) -> Tensor:
    products: Tensor = torch.linalg.vecdot(a, b)
    return products.unsqueeze(-1)


class _Norm(Function):
    """x_hat = (x - mean) * r with r = 1 / sqrt(var + eps) per row and group; y = x_hat * w + b."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, w: Tensor, b: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _wide(x.contiguous(), w)
        count = groups * (w.numel() // x.shape[1])
        y, mean, r = torch.ops.aten.native_group_norm(
            wide, w.reshape(-1), b.reshape(-1), *wide.shape, count, eps
        )
        ctx.save_for_backward(x, mean, r, w)
        ctx.mark_non_differentiable(mean, r)
        return y.reshape(x.shape), mean, r

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> Any:
        return *_gradient(*ctx.saved_tensors, grads[0]), None, None


class _NormGradient(Function):
    """(gx, gw, gb) as functions of x (also through mean and r), w and gy.

    gx = r * (u - mean(u) - x_hat * mean(u * x_hat)) with u = gy * w, means over the group's m entries.
    """

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, mean: Tensor, r: Tensor, w: Tensor, gy: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(x, mean, r, w, gy)
        wide = _wide(x.contiguous(), w)
        gx, gw, gb = torch.ops.aten.native_group_norm_backward(
            _wide(gy.contiguous(), w),
            wide,
            mean,
            r,
            w.reshape(-1),
            *wide.shape,
            r.shape[1],
            (True, True, True),
        )
        return gx.reshape(x.shape), gw.reshape(w.shape), gb.reshape(w.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *grads: Tensor) -> Any:
        x, mean, r, w, gy = ctx.saved_tensors
        wide_x, wide_g, wide_v = (_wide(value.contiguous(), w) for value in (x, gy, grads[0]))
        wide_w, vw, vb = (value.reshape(1, -1, 1) for value in (w, grads[1], grads[2]))
        to_x, to_w, to_gy = _second(wide_x, wide_g, wide_v, mean, r, wide_w, vw, vb)
        return to_x.reshape(x.shape), None, None, to_w.reshape(w.shape), to_gy.reshape(x.shape)


class _PooledNormalised(Function):
    """p = (mean over pixels of x - mean) * r, where mean and r depend on x."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
        rows, channels = x.shape[:2]
        p = x.reshape(rows, channels, -1).mean(-1).reshape(*r.shape, -1)
        p = (p - mean.unsqueeze(-1)) * r.unsqueeze(-1)
        ctx.save_for_backward(x, mean, r, p)
        return p.reshape(rows, channels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *grads: Tensor) -> Any:
        x, mean, r, p = ctx.saved_tensors
        mean, r, gp = mean.unsqueeze(-1), r.unsqueeze(-1), grads[0].reshape(p.shape)
        pixels = x[0, 0].numel()
        slope = -r * r * (gp * p).mean(-1, keepdim=True) / pixels
        constant = r * (gp - gp.mean(-1, keepdim=True)) / pixels - slope * mean
        rows = x.reshape(len(x), x.shape[1], -1)
        spread = slope.expand_as(p).reshape(*x.shape[:2], 1)
        return torch.addcmul(constant.reshape(*x.shape[:2], 1), rows, spread).reshape(x.shape), None, None


def _second(
    x: Tensor, g: Tensor, v: Tensor, mean: Tensor, r: Tensor, w: Tensor, vw: Tensor, vb: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of sum(v * gx) + sum(vw * gw) + sum(vb * gb) in x, w and gy = g.

    Maps x, g, v (N, C, pixels); mean, r (N, G); w, vw, vb (1, C, 1). With h = x_hat:
    s1 = sum g, s2 = sum g*h, v1 = sum v, v2 = sum v*h, v3 = sum v*g per channel.
    """
    rows, channels, pixels = x.shape
    count = r.shape[1]

    def spread(per_group: Tensor) -> Tensor:
        return per_group.repeat_interleave(channels // count, 1).unsqueeze(-1)

    def average(per_channel: Tensor) -> Tensor:
        return spread(per_channel.reshape(rows, count, -1).sum(-1) / (channels // count * pixels))

    mean, r = spread(mean), spread(r)
    s1, v1 = g.sum(-1, keepdim=True), v.sum(-1, keepdim=True)
    s2, v2 = r * (_sums(g, x) - mean * s1), r * (_sums(v, x) - mean * v1)
    v3 = _sums(v, g)
    m1, m2, p1, p2 = average(w * s1), average(w * s2), average(v1), average(v2)
    along = vw - r * w * p2
    to_w = (r * (v3 - p2 * s2 - p1 * s1)).sum(0)
    to_gy = torch.addcmul(vb - r * w * p1 - along * r * mean, v, w * r).addcmul_(x, along * r)
    slope = r * (average(along * s2) - r * m2 * p2) + r * r * (average(w * v3) - m2 * p2 - m1 * p1)
    constant = r * (r * m2 * p1 - average(along * s1)) + slope * r * mean
    to_x = torch.addcmul(constant, v, -r * r * m2).addcmul_(g, r * along).addcmul_(x, -slope * r)
    return to_x, to_w, to_gy


_norm: Any = _Norm.apply
_gradient: Any = _NormGradient.apply
_pooled: Any = _PooledNormalised.apply
