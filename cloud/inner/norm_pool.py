"""GroupNorm and the max-pool after it as one function, differentiable twice.

After pooling, the gradient at the norm's output is zero but at one position per window. Whatever is linear in it is
computed on the pooled map; few passes over the whole map are left, and the norm's output, its gradient and that
gradient's gradient are never stored. Layout as in `ops`; the algebra is `group_norm`'s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .group_norm import Groups, Normed, dots, second, wide
from .pool import Size, largest

Context = Any


def norm_pool(x: Tensor, w: Tensor, b: Tensor, groups: int, eps: float, window: Size) -> Normed:
    """Max-pool `group_norm`'s output over windows that tile the map (see `pool.window_of`)."""
    y, mean, r = _norm_pool(x, w, b, groups, eps, window)
    return Normed(y, mean.reshape(len(x), groups), r.reshape(len(x), groups))


class _NormPool(Function):
    @staticmethod
    def forward(
        ctx: Context, x: Tensor, w: Tensor, b: Tensor, groups: int, eps: float, window: Size
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = wide(x.contiguous(), w)
        count = groups * (w.numel() // x.shape[1])
        normed, mean, r = torch.ops.aten.native_group_norm(
            rows, w.reshape(-1), b.reshape(-1), *rows.shape, count, eps
        )
        y, position = largest(normed.reshape(x.shape), window)
        chosen = torch.gather(rows, 2, wide(position, w)) if any(ctx.needs_input_grad) else None
        ctx.save_for_backward(x, mean, r, w, position, chosen)
        ctx.mark_non_differentiable(mean, r)
        return y, mean, r

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> Any:
        return *_gradient(*ctx.saved_tensors, grads[0].contiguous()), None, None, None


class _Gradient(Function):
    """(gx, gw, gb) as functions of x (also through mean and r, and where it is chosen), w and the pooled map's gy."""

    @staticmethod
    def forward(ctx: Context, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(*inputs)
        x, mean, r, w, position, chosen, gy = inputs
        rows, at, g, scale = wide(x, w), wide(position, w), wide(gy, w), w.reshape(1, -1, 1)
        groups = Groups(mean, r, *rows.shape[1:])
        xg, s1 = dots(chosen, g)
        s2 = groups.r * (xg - groups.mean * s1)
        slope = -groups.r * groups.r * groups.average(scale * s2)
        constant = -groups.r * groups.average(scale * s1) - slope * groups.mean
        gx = torch.addcmul(constant, rows, slope).scatter_add_(2, at, g * (scale * groups.r))
        return gx.reshape(x.shape), s2.sum(0).reshape(w.shape), s1.sum(0).reshape(w.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *grads: Tensor) -> Any:
        x, mean, r, w, position, chosen, gy = ctx.saved_tensors
        rows, at, g, v = wide(x, w), wide(position, w), wide(gy, w), wide(grads[0].contiguous(), w)
        groups, pooled_v = Groups(mean, r, *rows.shape[1:]), torch.gather(v, 2, at)
        found = second(groups, dots(chosen, g), dots(rows, v), dots(pooled_v, g)[0], w, grads[1], grads[2])
        to_gy = torch.addcmul(found.gy_constant, pooled_v, found.gy_v).addcmul_(chosen, found.gy_x)
        to_x = torch.addcmul(found.x_constant, v, found.x_v).addcmul_(rows, found.x_x)
        to_x.scatter_add_(2, at, g * found.x_g)
        to_x, to_w, to_gy = to_x.reshape(x.shape), found.w.reshape(w.shape), to_gy.reshape(gy.shape)
        return to_x, None, None, to_w, None, None, to_gy


_norm_pool: Any = _NormPool.apply
_gradient: Any = _Gradient.apply
