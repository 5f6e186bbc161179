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


def wide(x: Tensor, w: Tensor) -> Tensor:
    """Rows as (N, T*C, pixels)."""
    return x.reshape(-1, w.numel(), x[0, 0].numel())


def dots(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over pixels of a * b and of b, maps (N, C, pixels), each (N, C, 1), in one pass without a product map.

    On a CPU torch's GroupNorm has the loop: with a mean of 0 and a deviation of 1 the gradients of its scale and
    shift are these sums, where rows are made channels.
    """
    rows, channels, pixels = a.shape
    if a.device.type != "cpu" or not pixels:
        return (a * b).sum(-1, keepdim=True), b.sum(-1, keepdim=True)
    count = rows * channels
    one, flat = a.new_ones(1, count), (1, count, pixels)
    _, products, plain = torch.ops.aten.native_group_norm_backward(
        b.reshape(flat),
        a.reshape(flat),
        torch.zeros_like(one),
        one,
        one[0],
        *flat,
        count,
        (False, True, True),
    )
    return products.reshape(rows, channels, 1), plain.reshape(rows, channels, 1)


class Groups:
    """Means and 1/sigma per group (N, G), spread over the channels of a map (N, C, pixels)."""

    def __init__(self, mean: Tensor, r: Tensor, channels: int, pixels: int) -> None:
        self._shape = (*mean.shape, channels // mean.shape[1])
        self._entries = self._shape[2] * pixels
        self.mean, self.r = self._spread(mean.unsqueeze(-1)), self._spread(r.unsqueeze(-1))

    def average(self, per_channel: Tensor) -> Tensor:
        """Sums per channel (N, C, 1) to the mean over each group's entries, spread again."""
        return self._spread(per_channel.reshape(self._shape).sum(-1, keepdim=True) / self._entries)

    def _spread(self, per_group: Tensor) -> Tensor:
        return per_group.expand(self._shape).reshape(self._shape[0], -1, 1)


class Second(NamedTuple):
    """Second derivatives as combinations of maps, coefficients (N, C, 1) and (1, C, 1).

    to_gy = gy_constant + v * gy_v + x * gy_x; to_x = x_constant + v * x_v + g * x_g + x * x_x; to_w = w (C, 1).
    """

    gy_constant: Tensor
    gy_v: Tensor
    gy_x: Tensor
    x_constant: Tensor
    x_v: Tensor
    x_g: Tensor
    x_x: Tensor
    w: Tensor


class _Norm(Function):
    """x_hat = (x - mean) * r with r = 1 / sqrt(var + eps) per row and group; y = x_hat * w + b."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, w: Tensor, b: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = wide(x.contiguous(), w)
        count = groups * (w.numel() // x.shape[1])
        y, mean, r = torch.ops.aten.native_group_norm(
            rows, w.reshape(-1), b.reshape(-1), *rows.shape, count, eps
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
        rows = wide(x.contiguous(), w)
        gx, gw, gb = torch.ops.aten.native_group_norm_backward(
            wide(gy.contiguous(), w),
            rows,
            mean,
            r,
            w.reshape(-1),
            *rows.shape,
            r.shape[1],
            (True, True, True),
        )
        return gx.reshape(x.shape), gw.reshape(w.shape), gb.reshape(w.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *grads: Tensor) -> Any:
        x, mean, r, w, gy = ctx.saved_tensors
        rows, g, v = (wide(value.contiguous(), w) for value in (x, gy, grads[0]))
        groups = Groups(mean, r, *rows.shape[1:])
        found = second(groups, dots(rows, g), dots(rows, v), dots(v, g)[0], w, grads[1], grads[2])
        to_gy = torch.addcmul(found.gy_constant, v, found.gy_v).addcmul_(rows, found.gy_x)
        to_x = torch.addcmul(found.x_constant, v, found.x_v).addcmul_(g, found.x_g).addcmul_(rows, found.x_x)
        return to_x.reshape(x.shape), None, None, found.w.reshape(w.shape), to_gy.reshape(x.shape)


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


def second(
    groups: Groups,
    gradient: tuple[Tensor, Tensor],
    vector: tuple[Tensor, Tensor],
    v3: Tensor,
    w: Tensor,
    vw: Tensor,
    vb: Tensor,
) -> Second:
    """Gradient of sum(v * gx) + sum(vw * gw) + sum(vb * gb) in x, w and gy = g.

    `gradient` and `vector` are the sums of x*g, g and of x*v, v per row and channel, v3 that of v*g, (N, C, 1).
    With h = x_hat: s1 = sum g, s2 = sum g*h, v1 = sum v, v2 = sum v*h.
    """
    w, vw, vb = (value.reshape(1, -1, 1) for value in (w, vw, vb))
    mean, r, average = groups.mean, groups.r, groups.average
    (xg, s1), (xv, v1) = gradient, vector
    s2, v2 = r * (xg - mean * s1), r * (xv - mean * v1)
    m1, m2, p1, p2 = average(w * s1), average(w * s2), average(v1), average(v2)
    along = vw - r * w * p2
    slope = r * (average(along * s2) - r * m2 * p2) + r * r * (average(w * v3) - m2 * p2 - m1 * p1)
    return Second(
        gy_constant=vb - r * w * p1 - along * r * mean,
        gy_v=w * r,
        gy_x=along * r,
        x_constant=r * (r * m2 * p1 - average(along * s1)) + slope * r * mean,
        x_v=-r * r * m2,
        x_g=r * along,
        x_x=-slope * r,
        w=(r * (v3 - p2 * s2 - p1 * s1)).sum(0),
    )


_norm: Any = _Norm.apply
_gradient: Any = _NormGradient.apply
_pooled: Any = _PooledNormalised.apply
