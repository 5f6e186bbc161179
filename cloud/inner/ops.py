"""Layers on many tasks at once, cheap to differentiate twice.

Layout: sample n of task t is row n*T + t of the batch, so that a map (N*T, C, H, W) is, without copying, the
map (N, T*C, H, W) of one convolution with T groups: per-task weights (T, O, I, h, w) cost one grouped
convolution. Weights without the task dimension are shared by all rows.

A convolution is linear in input, weight and output gradient; its gradients are the same kind of function, so
two autograd functions that differentiate into each other give second derivatives with no work beyond the
convolutions that the mathematics needs. (torch's own double backward convolves with kernels as large as the
image.)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Context = Any
Mask = tuple[bool, bool, bool]
NARROW = 8
"""Fewer input channels than this per task: a CPU takes 3 to 12 times as long for one convolution with T groups."""


class Geometry(NamedTuple):
    """What a convolution needs beside its tensors; groups counts one task's groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, part: nn.Conv2d) -> Geometry:
        """The geometry of a torch convolution with explicit zero padding."""
        assert not isinstance(part.padding, str)
        return cls(part.stride, part.padding, part.dilation, part.groups)


class Wanted(NamedTuple):
    """Which gradients a layer's *inner* backward pass computes (the outer one computes all)."""

    input: bool = True
    weight: bool = True


def _widen(x: Tensor, w: Tensor) -> Tensor:
    """(N*T, C, H, W) as (N, T*C, H, W) for per-task weights; unchanged for shared ones."""
    if w.dim() == 4:
        return x
    tasks = w.shape[0]
    return x.reshape(x.shape[0] // tasks, tasks * x.shape[1], *x.shape[2:])


def _tasks_one_by_one(w: Tensor, geometry: Geometry) -> int:
    """How many convolutions to make of T tasks' weights: 0 for one with T groups, which CPUs do slowly if narrow."""
    narrow = w.dim() == 5 and len(w) > 1 and w.shape[2] < NARROW and geometry.groups == 1
    return len(w) if narrow and w.device.type == "cpu" else 0


def _convolve(x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
    if count := _tasks_one_by_one(w, geometry):
        parts = [
            torch.conv2d(x[t::count], w[t], None if b is None else b[t], *geometry) for t in range(count)
        ]
        return torch.stack(parts, 1).flatten(0, 1)
    tasks = w.shape[0] if w.dim() == 5 else 1
    bias = None if b is None else b.reshape(-1)
    stride, padding, dilation, groups = geometry
    flat = w.reshape(-1, *w.shape[-3:])
    y = torch.conv2d(_widen(x, w), flat, bias, stride, padding, dilation, tasks * groups)
    return y.reshape(x.shape[0], -1, *y.shape[2:])


def _gradients(
    x: Tensor, w: Tensor, gy: Tensor, geometry: Geometry, mask: tuple[bool, bool]
) -> tuple[Any, Any]:
    """(gx, gw), None where the mask says so."""
    if count := _tasks_one_by_one(w, geometry):
        one = [_gradients(x[t::count], w[t], gy[t::count], geometry, mask) for t in range(count)]
        gx = torch.stack([each[0] for each in one], 1).flatten(0, 1) if mask[0] else None
        return gx, (torch.stack([each[1] for each in one]) if mask[1] else None)
    tasks = w.shape[0] if w.dim() == 5 else 1
    stride, padding, dilation, groups = geometry
    flat = w.reshape(-1, *w.shape[-3:])
    wide_x, wide_gy = _widen(x, w), _widen(gy, w)
    gx, gw, _ = torch.ops.aten.convolution_backward(
        wide_gy, wide_x, flat, None, stride, padding, dilation, False, (0, 0), tasks * groups, (*mask, False)
    )
    return (gx.reshape(x.shape) if mask[0] else None), (gw.reshape(w.shape) if mask[1] else None)


class _Conv(Function):
    """y(x, w, b)."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry, wanted: Wanted
    ) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry, ctx.wanted, ctx.has_bias = geometry, wanted, b is not None
        return _convolve(x, w, b, geometry)

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> Any:
        (gy,) = grads
        x, w = ctx.saved_tensors
        inner = torch.is_grad_enabled()
        need_x = ctx.needs_input_grad[0] and (ctx.wanted.input or not inner)
        need_w = ctx.needs_input_grad[1] and (ctx.wanted.weight or not inner)
        mask = need_x, need_w, need_w and ctx.has_bias
        return *_conv_gradients(x, w, gy, ctx.geometry, mask), None, None


class _ConvGradients(Function):
    """(gx, gw, gb) as functions of x, w and gy; what the mask leaves out is None and costs nothing."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, w: Tensor, gy: Tensor, geometry: Geometry, mask: Mask
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        ctx.save_for_backward(x, w, gy)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        gx, gw = _gradients(x, w, gy, geometry, mask[:2])
        gb = _widen(gy, w).sum((0, 2, 3)).reshape(w.shape[:-3]) if mask[2] else None
        return gx, gw, gb

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *grads: Tensor | None) -> Any:
        v, vw, vb = grads
        x, w, gy = ctx.saved_tensors
        to_x = to_w = to_gy = None
        if v is not None:
            to_w = _gradients(v, w, gy, ctx.geometry, (False, True))[1]
            to_gy = _convolve(v, w, None, ctx.geometry)
        if vw is not None or vb is not None:
            vw = torch.zeros_like(w) if vw is None else vw
            if ctx.needs_input_grad[0]:
                to_x = _gradients(x, vw, gy, ctx.geometry, (True, False))[0]
            along = _convolve(x, vw, vb, ctx.geometry)
            to_gy = along if to_gy is None else to_gy.add_(along)
        return to_x, to_w, to_gy, None, None


_conv: Any = _Conv.apply
_conv_gradients: Any = _ConvGradients.apply


def conv(x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry, wanted: Wanted = Wanted()) -> Tensor:  # noqa: B008
    """Convolve (N*T, C, H, W) with weights (T, O, I, h, w) and bias (T, O), or shared (O, I, h, w), (O,)."""
    y: Tensor = _conv(x, w, b, geometry, wanted)
    return y


def conv_weight_gradient(x: Tensor, gy: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    """Sum over a task's samples of dL/dw, in w's shape (T, O, I, h, w); differentiable once in x and gy."""
    gw: Tensor = _conv_gradients(x, w, gy, geometry, (False, True, False))[1]
    return gw


def linear(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """x (N*T, ..., F) times weights (T, O, F), bias (T, O), or shared (O, F), (O,)."""
    if w.dim() == 2:
        return nn.functional.linear(x, w, b)
    tasks = w.shape[0]
    y = torch.einsum("nt...f,tof->nt...o", x.reshape(-1, tasks, *x.shape[1:]), w)
    if b is not None:
        y = y + b.reshape(tasks, *(1,) * (x.dim() - 2), -1)
    return y.reshape(x.shape[0], *y.shape[2:])
