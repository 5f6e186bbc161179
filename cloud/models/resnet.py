"""ResNet18 (ImageNet) and ResNet20 (32-pixel images): basic blocks of two 3x3 convolutions and a shortcut."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .parts import ConvNorm, GlobalAverage, NormLayer, Shape, check_width, image_shape, norm_layer, rounded


class BasicBlock(nn.Module):
    """relu(second(first(x)) + shortcut(x)); the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, channels: int, stride: int, norm: NormLayer) -> None:
        super().__init__()
        self.first = ConvNorm(before, channels, 3, stride, norm, nn.ReLU)
        self.second = ConvNorm(channels, channels, 3, 1, norm)
        same = stride == 1 and before == channels
        self.shortcut: nn.Module = nn.Identity() if same else ConvNorm(before, channels, 1, stride, norm)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C, H/stride, W/stride), rounded up."""
        y: Tensor = self.relu(self.second(self.first(x)) + self.shortcut(x))
        return y


def _stages(before: int, widths: Sequence[int], blocks: int, norm: NormLayer) -> nn.Sequential:
    """Blocks named stage1_block1, ...; every stage but the first starts with stride 2."""
    parts = nn.Sequential()
    for stage, channels in enumerate(widths, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            parts.add_module(f"stage{stage}_block{block}", BasicBlock(before, channels, stride, norm))
            before = channels
    return parts


class ResNet18(nn.Module):
    """Stem (7x7 conv stride 2, overlapping 3x3 max-pool), four stages of two blocks, average pool, fc.

    Args:
        sample_shape: (C, H, W) of an image, at least 16 x 16 pixels (224 in the paper).
        outputs: of the classifier.
        norm: "group" or "batch".
        width: multiplies all channels.

    Raises:
        ValueError: a sample is no such image, or an option is none of its choices.
    """

    def __init__(self, sample_shape: Shape, outputs: int, norm: str = "group", width: float = 1.0) -> None:
        super().__init__()
        before, _, _ = image_shape("ResNet18", sample_shape, (16, 16))
        widths = [rounded(channels * check_width(width)) for channels in (64, 128, 256, 512)]
        self.stem = ConvNorm(before, widths[0], 7, 2, norm_layer(norm), nn.ReLU)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = _stages(widths[0], widths, 2, norm_layer(norm))
        self.average = GlobalAverage()
        self.fc = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, outputs)."""
        y: Tensor = self.fc(self.average(self.stages(self.pool(self.stem(x)))))
        return y


class ResNet20(nn.Module):
    """Stem (3x3 conv), three stages of three blocks with 16, 32 and 64 channels, average pool, fc.

    Where the size halves the shortcut is a 1x1 convolution (the paper's option B).

    Args:
        sample_shape: (C, H, W) of an image, at least 8 x 8 pixels (32 in the paper).
        outputs: of the classifier.
        norm: "group" or "batch".
        width: multiplies all channels.

    Raises:
        ValueError: a sample is no such image, or an option is none of its choices.
    """

    def __init__(self, sample_shape: Shape, outputs: int, norm: str = "group", width: float = 1.0) -> None:
        super().__init__()
        before, _, _ = image_shape("ResNet20", sample_shape, (8, 8))
        widths = [rounded(channels * check_width(width)) for channels in (16, 32, 64)]
        self.stem = ConvNorm(before, widths[0], 3, 1, norm_layer(norm), nn.ReLU)
        self.stages = _stages(widths[0], widths, 3, norm_layer(norm))
        self.average = GlobalAverage()
        self.fc = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, outputs)."""
        y: Tensor = self.fc(self.average(self.stages(self.stem(x))))
        return y
