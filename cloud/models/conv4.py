"""4Conv, the backbone of MAML and p-Meta: 4 x [3x3 conv, norm, ReLU, 2x2 pool], fc."""

from __future__ import annotations

from torch import Tensor, nn

from .parts import POOLS, Shape, image_shape, norm_layer, one_of

CHANNELS = 32


class Conv4(nn.Module):
    """Layers conv1, norm1, ..., conv4, norm4, fc (L = 9).

    Args:
        sample_shape: (C, H, W) of an image, at least 16 x 16 pixels.
        outputs: of the classifier.
        norm: "group" or "batch".
        pool: "max" or "average".

    Raises:
        ValueError: the images are too small for four halvings, or an option is none of its choices.
    """

    def __init__(self, sample_shape: Shape, outputs: int, norm: str = "group", pool: str = "max") -> None:
        super().__init__()
        channels, height, width = image_shape("4Conv", sample_shape, (16, 16))
        make_norm, make_pool = norm_layer(norm), POOLS[one_of("pool", pool, tuple(POOLS))]
        for index in range(1, 5):
            before = channels if index == 1 else CHANNELS
            self.add_module(f"conv{index}", nn.Conv2d(before, CHANNELS, 3, padding=1))
            self.add_module(f"norm{index}", make_norm(CHANNELS))
            self.add_module(f"relu{index}", nn.ReLU())
            self.add_module(f"pool{index}", make_pool(2))
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(CHANNELS * (height // 16) * (width // 16), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, outputs)."""
        for layer in self.children():
            x = layer(x)
        return x
