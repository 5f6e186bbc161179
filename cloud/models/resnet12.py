"""ResNet12, the larger few-shot backbone: four blocks of three 3x3 convolutions with a 1x1 shortcut."""

from __future__ import annotations

from torch import Tensor, nn

from .parts import POOLS, ConvNorm, GlobalAverage, NormLayer, Shape, image_shape, norm_layer, one_of

CHANNELS = (64, 128, 256, 512)


class Block(nn.Module):
    """relu(third(second(first(x))) + shortcut(x)), then a pool; every convolution has a norm, none a bias."""

    def __init__(self, before: int, channels: int, norm: NormLayer, pool: nn.Module) -> None:
        super().__init__()
        self.first = ConvNorm(before, channels, 3, 1, norm, nn.ReLU)
        self.second = ConvNorm(channels, channels, 3, 1, norm, nn.ReLU)
        self.third = ConvNorm(channels, channels, 3, 1, norm)
        self.shortcut = ConvNorm(before, channels, 1, 1, norm)
        self.relu = nn.ReLU()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C, H/2, W/2), rounded down."""
        y = self.third(self.second(self.first(x)))
        pooled: Tensor = self.pool(self.relu(y + self.shortcut(x)))
        return pooled


class ResNet12(nn.Module):
    """Layers block1.first.conv, block1.first.norm, ..., block4.shortcut.norm, fc (L = 33).

    Args:
        sample_shape: (C, H, W) of an image, at least 16 x 16 pixels.
        outputs: of the classifier.
        norm: "group" or "batch".
        pool: "max" or "average", after every block.
        channels: of the four blocks.

    Raises:
        ValueError: the images are too small for four halvings, or an option is none of its choices.
    """

    def __init__(
        self,
        sample_shape: Shape,
        outputs: int,
        norm: str = "group",
        pool: str = "max",
        channels: tuple[int, ...] = CHANNELS,
    ) -> None:
        super().__init__()
        before, _, _ = image_shape("ResNet12", sample_shape, (2 ** len(channels),) * 2)
        make_pool = POOLS[one_of("pool", pool, tuple(POOLS))]
        for index, after in enumerate(channels, start=1):
            self.add_module(f"block{index}", Block(before, after, norm_layer(norm), make_pool(2)))
            before = after
        self.average = GlobalAverage()
        self.fc = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, outputs)."""
        for part in self.children():
            x = part(x)
        return x
