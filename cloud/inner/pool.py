"""Max-pooling over windows that tile the map, in vectorised passes without branches.

On a CPU 1 (smooth images) to 3 times as fast as torch's kernel, whose speed depends on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

Context = Any
Size = tuple[int, int]


def window_of(part: nn.Module) -> Size | None:
    """(height, width) of a max-pool whose windows tile the map without padding; None for any other module."""
    if not isinstance(part, nn.MaxPool2d):
        return None
    kernel, stride, padding, dilation = map(
        _pair, (part.kernel_size, part.stride, part.padding, part.dilation)
    )
    tiles = stride == kernel and padding == (0, 0) and dilation == (1, 1)
    return kernel if tiles and not part.ceil_mode and not part.return_indices else None


def max_pool(x: Tensor, window: Size) -> Tensor:
    """Maximum of each window of x (B, C, H, W); of equal entries the first in row-major order gets the gradient."""
    y: Tensor = _pool(x, window)
    return y


def _pair(value: int | tuple[int, ...]) -> Size:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def largest(x: Tensor, window: Size) -> tuple[Tensor, Tensor]:
    """Maximum of each window of x (B, C, H, W), and the flat position (int64) in its map that it came from."""
    (high, wide), (height, width) = window, x.shape[2:]
    rows, columns = height // high, width // wide
    tiles = x[:, :, : rows * high, : columns * wide].reshape(*x.shape[:2], rows, high, columns, wide)
    lines = tiles.unbind(3)
    y = reduce(torch.maximum, reduce(torch.maximum, lines).unbind(4)).contiguous()
    offsets = [row * width + column for row in range(high) for column in range(wide)]
    down, across = (torch.arange(count, device=x.device) for count in (rows, columns))
    corner = down.unsqueeze(1) * high * width + across * wide
    return y, corner + _first(y, [part for line in lines for part in line.unbind(4)], offsets)


def _first(y: Tensor, parts: Sequence[Tensor], offsets: Sequence[int]) -> Tensor:
    """The offset of the first of the parts that is y: every smaller one before it takes it one further.

    Sums of products of bytes, which are several times faster than torch.where.
    """
    found = torch.zeros((), dtype=torch.uint8 if offsets[-1] < 256 else torch.int32, device=y.device)
    smaller = torch.ones((), dtype=found.dtype, device=y.device)
    for part, here, following in zip(parts, offsets, offsets[1:], strict=False):
        smaller = smaller * (part < y).view(torch.uint8)
        found = found + smaller * (following - here)
    return found.expand(y.shape)


class _MaxPool(Function):
    """y and, for each window, the flat position in the input map that it came from."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, window: Size) -> Tensor:
        y, position = largest(x, window)
        ctx.save_for_backward(x, position)
        ctx.window = window
        return y

    @staticmethod
    def backward(ctx: Context, *grads: Tensor) -> Any:
        x, position = ctx.saved_tensors
        window = list(ctx.window)
        gx = torch.ops.aten.max_pool2d_with_indices_backward(
            grads[0].contiguous(), x, window, window, [0, 0], [1, 1], False, position
        )
        return gx, None


_pool: Any = _MaxPool.apply
