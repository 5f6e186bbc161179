"""Layers on many tasks at once, cheap to differentiate twice.

Layout: sample n of task t is row n*T + t of the batch, so that a map (N*T, C, H, W) is, without copying, the
map (N, T*C, H, W) of one convolution with T groups: per-task weights (T, O, I, h, w) cost one grouped
convolution. Weights without the task dimension are shared by all rows.

A convolution is linear in input, weight and output gradient; its two gradients are the same kind of function,
so three autograd functions that differentiate into each other give second derivatives with no work beyond the
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


def _convolve(x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry) -> Tensor:
    tasks = w.shape[0] if w.dim() == 5 else 1
    bias = None if b is None else b.reshape(-1)
    stride, padding, dilation, groups = geometry
    flat = w.reshape(-1, *w.shape[-3:])
    y = torch.conv2d(_widen(x, w), flat, bias, stride, padding, dilation, tasks * groups)
    return y.reshape(x.shape[0], -1, *y.shape[2:])


def _gradients(
    x: Tensor, w: Tensor, gy: Tensor, geometry: Geometry, mask: tuple[bool, bool]
) -> tuple[Any, Any]:
    tasks = w.shape[0] if w.dim() == 5 else 1
    stride, padding, dilation, groups = geometry
    flat = w.reshape(-1, *w.shape[-3:])
    wide_x, wide_gy = _widen(x, w), _widen(gy, w)
    gx, gw, _ = torch.ops.aten.convolution_backward(
        wide_gy, wide_x, flat, None, stride, padding, dilation, False, (0, 0), tasks * groups, (*mask, False)
    )
    return (gx.reshape(x.shape) if mask[0] else None), (gw.reshape(w.shape) if mask[1] else None)


class _Conv(Function):
    """y(x, w, b); backward: the two other functions, and the sum over rows and pixels for the bias."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry, wanted: Wanted
    ) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry, ctx.wanted, ctx.bias_shape = geometry, wanted, None if b is None else b.shape
        return _convolve(x, w, b, geometry)

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> Any:
        (gy,) = grads
        x, w = ctx.saved_tensors
        inner = torch.is_grad_enabled()
        need_x = ctx.needs_input_grad[0] and (ctx.wanted.input or not inner)
        need_w = ctx.needs_input_grad[1] and (ctx.wanted.weight or not inner)
        gx = _conv_input(x, w, gy, ctx.geometry) if need_x else None
        gw = _conv_weight(x, w, gy, ctx.geometry) if need_w else None
        need_b = ctx.bias_shape is not None and need_w
        gb = _widen(gy, w).sum((0, 2, 3)).reshape(ctx.bias_shape) if need_b else None
        return gx, gw, gb, None, None


class _ConvInput(Function):
    """gx(w, gy); x gives only the shape."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, w: Tensor, gy: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, w, gy)
        ctx.geometry = geometry
        gx: Tensor = _gradients(x, w, gy, geometry, (True, False))[0]
        return gx

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *grads: Tensor) -> Any:
        (v,) = grads
        _, w, gy = ctx.saved_tensors
        gw = _gradients(v, w, gy, ctx.geometry, (False, True))[1]
        return None, gw, _convolve(v, w, None, ctx.geometry), None


class _ConvWeight(Function):
    """gw(x, gy); w gives only the shape."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, w: Tensor, gy: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, gy)
        ctx.geometry = geometry
        gw: Tensor = _gradients(x, w, gy, geometry, (False, True))[1]
        return gw

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *grads: Tensor) -> Any:
        (v,) = grads
        x, gy = ctx.saved_tensors
        gx = _gradients(x, v, gy, ctx.geometry, (True, False))[0] if ctx.needs_input_grad[0] else None
        return gx, None, _convolve(x, v, None, ctx.geometry), None


_conv: Any = _Conv.apply
_conv_input: Any = _ConvInput.apply
_conv_weight: Any = _ConvWeight.apply


def conv(x: Tensor, w: Tensor, b: Tensor | None, geometry: Geometry, wanted: Wanted = Wanted()) -> Tensor:  # noqa: B008
    """Convolve (N*T, C, H, W) with weights (T, O, I, h, w) and bias (T, O), or shared (O, I, h, w), (O,)."""
    y: Tensor = _conv(x, w, b, geometry, wanted)
    return y


def conv_weight_gradient(x: Tensor, gy: Tensor, w: Tensor, geometry: Geometry) -> Tensor:
    """Sum over a task's samples of dL/dw, in w's shape (T, O, I, h, w); differentiable once in x and gy."""
    gw: Tensor = _conv_weight(x, w, gy, geometry)
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
