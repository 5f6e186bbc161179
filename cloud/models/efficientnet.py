"""EfficientNet-B0 and its compound scaling: inverted residuals with squeeze-excite and SiLU."""

from __future__ import annotations

import math

from torch import Tensor, nn

from .parts import (
    ConvNorm,
    GlobalAverage,
    InvertedResidual,
    Shape,
    SqueezeExcite,
    check_width,
    image_shape,
    norm_layer,
    rounded,
)

EPS = 1e-3
TABLE = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)
"""Table 1 of the paper: expansion, kernel, channels, layers, stride of the first layer."""


class EfficientNet(nn.Module):
    """B0: stem, 16 inverted residuals, 1x1 convolution to 1280 channels, average pool, fc.

    Stochastic depth and dropout, which the paper trains with, are left out: they have no parameters.

    Args:
        sample_shape: (C, H, W) of an image, at least 16 x 16 pixels (224 in the paper).
        outputs: of the classifier.
        norm: "group" or "batch".
        width: multiplies all channels (1.0 for B0 and B1, 1.1 for B2, ...).
        depth: multiplies the layers of a stage (1.0 for B0, 1.1 for B1, 1.2 for B2, ...).

    Raises:
        ValueError: a sample is no such image, or an option is none of its choices.
    """

    def __init__(
        self,
        sample_shape: Shape,
        outputs: int,
        norm: str = "group",
        width: float = 1.0,
        depth: float = 1.0,
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape("EfficientNet", sample_shape, (16, 16))
        make_norm = norm_layer(norm, EPS)
        before, last = rounded(32 * check_width(width)), rounded(1280 * width)
        self.stem = ConvNorm(channels, before, 3, 2, make_norm, nn.SiLU)
        self.blocks = nn.Sequential()
        for expansion, kernel, base, layers, first_stride in TABLE:
            for layer in range(math.ceil(depth * layers)):
                sizes = (before, before * expansion, rounded(base * width))
                excite = SqueezeExcite(sizes[1], max(1, before // 4), nn.SiLU, nn.Sigmoid)
                stride = first_stride if layer == 0 else 1
                self.blocks.append(InvertedResidual(sizes, kernel, stride, make_norm, nn.SiLU, excite))
                before = sizes[-1]
        self.head = ConvNorm(before, last, 1, 1, make_norm, nn.SiLU)
        self.average = GlobalAverage()
        self.fc = nn.Linear(last, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, outputs)."""
        for part in self.children():
            x = part(x)
        return x
