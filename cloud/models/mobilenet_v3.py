"""MobileNetV3-small: inverted residuals with squeeze-excite and hard-swish, found by architecture search."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from .parts import (
    ConvNorm,
    GlobalAverage,
    InvertedResidual,
    NormLayer,
    Shape,
    SqueezeExcite,
    check_width,
    image_shape,
    norm_layer,
    rounded,
)

EPS = 1e-3


class Row(NamedTuple):
    """One line of the paper's table 2."""

    kernel: int
    expanded: int
    channels: int
    excites: bool
    act: type[nn.Module]
    stride: int


TABLE = (
    Row(3, 16, 16, True, nn.ReLU, 2),
    Row(3, 72, 24, False, nn.ReLU, 2),
    Row(3, 88, 24, False, nn.ReLU, 1),
    Row(5, 96, 40, True, nn.Hardswish, 2),
    Row(5, 240, 40, True, nn.Hardswish, 1),
    Row(5, 240, 40, True, nn.Hardswish, 1),
    Row(5, 120, 48, True, nn.Hardswish, 1),
    Row(5, 144, 48, True, nn.Hardswish, 1),
    Row(5, 288, 96, True, nn.Hardswish, 2),
    Row(5, 576, 96, True, nn.Hardswish, 1),
    Row(5, 576, 96, True, nn.Hardswish, 1),
)


def _block(row: Row, before: int, width: float, norm: NormLayer) -> InvertedResidual:
    hidden, after = rounded(row.expanded * width), rounded(row.channels * width)
    squeezed = rounded(hidden // 4)
    excite = SqueezeExcite(hidden, squeezed, nn.ReLU, nn.Hardsigmoid) if row.excites else None
    return InvertedResidual((before, hidden, after), row.kernel, row.stride, norm, row.act, excite)


class MobileNetV3Small(nn.Module):
    """Stem, 11 inverted residuals, 1x1 convolution, average pool, two fully connected layers.

    Args:
        sample_shape: (C, H, W) of an image, at least 16 x 16 pixels (224 in the paper).
        outputs: of the classifier.
        norm: "group" or "batch".
        width: multiplies all channels, those of the hidden classifier layer (1024) only above 1.

    Raises:
        ValueError: a sample is no such image, or an option is none of its choices.
    """

    def __init__(self, sample_shape: Shape, outputs: int, norm: str = "group", width: float = 1.0) -> None:
        super().__init__()
        channels, _, _ = image_shape("MobileNetV3-small", sample_shape, (16, 16))
        make_norm = norm_layer(norm, EPS)
        before = rounded(16 * check_width(width))
        self.stem = ConvNorm(channels, before, 3, 2, make_norm, nn.Hardswish)
        self.blocks = nn.Sequential()
        for row in TABLE:
            self.blocks.append(_block(row, before, width, make_norm))
            before = rounded(row.channels * width)
        hidden = rounded(1024 * max(1.0, width))
        self.head = ConvNorm(before, 6 * before, 1, 1, make_norm, nn.Hardswish)
        self.average = GlobalAverage()
        self.hidden = nn.Linear(6 * before, hidden)
        self.act = nn.Hardswish()
        self.fc = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, outputs)."""
        for part in self.children():
            x = part(x)
        return x
