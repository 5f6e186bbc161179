"""Parts that several backbones share: norms, convolution with norm and activation, inverted residuals.

Nothing here works in place, and every parameter is used exactly once in a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

GROUPS, EPS = 8, 1e-5
NORMS = ("group", "batch")
POOLS: dict[str, Callable[[int], nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}

Shape = tuple[int, ...]
Activation = Callable[[], nn.Module]
NormLayer = Callable[[int], nn.Module]
_BATCH_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


def one_of(name: str, value: str, choices: Sequence[str]) -> str:
    """The value itself; raises ValueError with the choices if it is none of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


def norm_layer(kind: str, eps: float = EPS, dims: int = 2) -> NormLayer:
    """Makes norms by channels: "group" (for the device) or "batch" (for pre-trained use, or as an ablation).

    Groups are 8, or 4, 2, 1 where 8 do not divide the channels into groups of at least two: with one channel
    per group the pooled normalised input, which meta attention looks at, would be exactly 0.

    Args:
        kind: "group" or "batch".
        eps: added to the variance.
        dims: axes after the channels, 1 or 2.
    """
    if one_of("norm", kind, NORMS) == "batch":
        return lambda channels: _BATCH_NORMS[dims](channels, eps=eps)
    return lambda channels: nn.GroupNorm(groups_of(channels), channels, eps=eps)


def groups_of(channels: int) -> int:
    """Groups of a GroupNorm: the most of 8, 4, 2, 1 that leave at least two channels in each."""
    return next((g for g in (GROUPS, 4, 2) if channels % g == 0 and channels >= 2 * g), 1)


def rounded(channels: float, divisor: int = 8) -> int:
    """Channels scaled by a width multiplier to a multiple of 8, never below 90 % (MobileNetV2's rule)."""
    near = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return near if near >= 0.9 * channels else near + divisor


def check_width(width: float) -> float:
    """A width multiplier; raises ValueError unless it is above 0."""
    if not width > 0:
        raise ValueError(f"width must be above 0, got {width!r}")
    return width


def image_shape(model: str, shape: Shape, smallest: tuple[int, int]) -> tuple[int, int, int]:
    """(C, H, W) of a sample; raises ValueError unless it has this form and at least the smallest (H, W)."""
    if len(shape) != 3 or shape[0] < 1 or shape[1] < smallest[0] or shape[2] < smallest[1]:
        height, width = smallest
        raise ValueError(
            f"{model} takes samples (channels, height, width), size must be at least {height} x {width}, "
            f"got {tuple(shape)}"
        )
    return shape[0], shape[1], shape[2]


class ConvNorm(nn.Module):
    """Convolution without bias, zero-padded to keep the size at stride 1; norm; activation (none: linear)."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        norm: NormLayer,
        act: Activation = nn.Identity,
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False)
        self.norm = norm(channels_out)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H/stride, W/stride), rounded up."""
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class GlobalAverage(nn.Module):
    """Mean over height and width: (N, C, H, W) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Average over the last two axes."""
        return x.mean((2, 3))


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int, act: Activation, gate: Activation) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = act()
        self.restore = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        scale = self.gate(self.restore(self.act(self.reduce(self.pool(x)))))
        return torch.mul(x, scale)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze-excite, linear 1x1 projection (MobileNetV2, sec. 3.3).

    The input is added where the shapes agree; a block that does not expand has no first convolution.
    """

    def __init__(
        self,
        channels: tuple[int, int, int],
        kernel: int,
        stride: int,
        norm: NormLayer,
        act: Activation,
        excite: nn.Module | None = None,
    ) -> None:
        super().__init__()
        before, hidden, after = channels
        expands = hidden != before
        self.expand: nn.Module = ConvNorm(before, hidden, 1, 1, norm, act) if expands else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, kernel, stride, norm, act, groups=hidden)
        self.excite = nn.Identity() if excite is None else excite
        self.project = ConvNorm(hidden, after, 1, 1, norm)
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, H, W) to (N, after, H/stride, W/stride), rounded up."""
        y: Tensor = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.adds else y
