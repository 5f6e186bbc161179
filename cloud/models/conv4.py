"""4Conv, the backbone of MAML and p-Meta: 4 x [3x3 conv, GroupNorm, ReLU, 2x2 max-pool], fc."""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS, GROUPS, EPS = 32, 8, 1e-5


class Conv4(nn.Module):
    """Layers conv1, norm1, ..., conv4, norm4, fc (L = 9).

    Args:
        in_channels: channels of the images.
        size: height and width of the images in pixels, at least 16.
        ways: outputs of the classifier.

    Raises:
        ValueError: the images are too small for four halvings.
    """

    def __init__(self, in_channels: int, size: int, ways: int) -> None:
        super().__init__()
        if size < 16:
            raise ValueError(
                f"4Conv halves its input four times: size must be at least 16 pixels, got {size}"
            )
        for index in range(1, 5):
            channels = in_channels if index == 1 else CHANNELS
            self.add_module(f"conv{index}", nn.Conv2d(channels, CHANNELS, 3, padding=1))
            self.add_module(f"norm{index}", nn.GroupNorm(GROUPS, CHANNELS, eps=EPS))
            self.add_module(f"relu{index}", nn.ReLU())
            self.add_module(f"pool{index}", nn.MaxPool2d(2))
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(CHANNELS * (size // 16) ** 2, ways)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, ways)."""
        for layer in self.children():
            x = layer(x)
        return x
