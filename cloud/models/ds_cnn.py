"""DS-CNN for keyword spotting: one convolution, four depthwise separable ones, average pool, fc."""

from __future__ import annotations

from torch import Tensor, nn

from .parts import GlobalAverage, NormLayer, Shape, check_width, image_shape, norm_layer, rounded

CHANNELS, BLOCKS = 64, 4


class Separable(nn.Module):
    """3x3 depthwise, norm, ReLU; 1x1, norm, ReLU; both convolutions with bias, as in the published network."""

    def __init__(self, channels: int, norm: NormLayer) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.depthwise_norm, self.depthwise_relu = norm(channels), nn.ReLU()
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.pointwise_norm, self.pointwise_relu = norm(channels), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        for part in self.children():
            x = part(x)
        return x


class DSCNN(nn.Module):
    """DS-CNN-S of "Hello Edge", the keyword network of MLPerf Tiny; samples are (1, 49, 10) MFCC frames.

    The first convolution is 10 x 4 with stride 2 and 5, 1 zeros on each side: 25 x 5 outputs, as with the
    published network's uneven padding (its dropout has no parameters and is left out).

    Args:
        sample_shape: (channels, frames, coefficients), at least (1, 10, 4).
        outputs: of the classifier (12 keywords in the paper).
        norm: "group" or "batch".
        width: multiplies the 64 channels.

    Raises:
        ValueError: a sample has another form, or an option is none of its choices.
    """

    def __init__(self, sample_shape: Shape, outputs: int, norm: str = "group", width: float = 1.0) -> None:
        super().__init__()
        before, _, _ = image_shape("DS-CNN", sample_shape, (10, 4))
        make_norm, channels = norm_layer(norm), rounded(CHANNELS * check_width(width))
        self.conv = nn.Conv2d(before, channels, (10, 4), stride=2, padding=(5, 1))
        self.norm, self.relu = make_norm(channels), nn.ReLU()
        for index in range(1, BLOCKS + 1):
            self.add_module(f"block{index}", Separable(channels, make_norm))
        self.average = GlobalAverage()
        self.fc = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, frames, coefficients) to logits (N, outputs)."""
        for part in self.children():
            x = part(x)
        return x
