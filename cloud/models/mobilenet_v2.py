"""MobileNetV2: inverted residuals with linear bottlenecks and ReLU6."""

from __future__ import annotations

from torch import Tensor, nn

from .parts import (
    ConvNorm,
    GlobalAverage,
    InvertedResidual,
    Shape,
    check_width,
    image_shape,
    norm_layer,
    rounded,
)

TABLE = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Table 2 of the paper: expansion t, channels c, repeats n, stride s of the first repeat."""


class MobileNetV2(nn.Module):
    """Stem, 17 inverted residuals, 1x1 convolution to 1280 channels, average pool, fc.

    Args:
        sample_shape: (C, H, W) of an image, at least 16 x 16 pixels (224 in the paper).
        outputs: of the classifier.
        norm: "group" or "batch".
        width: multiplies all channels; the last 1280 only where it is above 1 (the paper's rule).

    Raises:
        ValueError: a sample is no such image, or an option is none of its choices.
    """

    def __init__(self, sample_shape: Shape, outputs: int, norm: str = "group", width: float = 1.0) -> None:
        super().__init__()
        channels, _, _ = image_shape("MobileNetV2", sample_shape, (16, 16))
        make_norm = norm_layer(norm)
        before, last = rounded(32 * check_width(width)), rounded(1280 * max(1.0, width))
        self.stem = ConvNorm(channels, before, 3, 2, make_norm, nn.ReLU6)
        self.blocks = nn.Sequential()
        for expansion, base, repeats, first_stride in TABLE:
            for repeat in range(repeats):
                sizes = (before, before * expansion, rounded(base * width))
                stride = first_stride if repeat == 0 else 1
                self.blocks.append(InvertedResidual(sizes, 3, stride, make_norm, nn.ReLU6))
                before = sizes[-1]
        self.head = ConvNorm(before, last, 1, 1, make_norm, nn.ReLU6)
        self.average = GlobalAverage()
        self.fc = nn.Linear(last, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, outputs)."""
        for part in self.children():
            x = part(x)
        return x
