"""The set encoder of CNAPs: what a task's images look like, in one short vector (Requeima et al., NeurIPS 2019)."""

from __future__ import annotations

from torch import Tensor, nn

from ..models.parts import ConvNorm, GlobalAverage, image_shape, norm_layer

CHANNELS, LAYERS = 64, 5


class SetEncoder(nn.Module):
    """Up to five 3x3 convolutions to 64 channels with GroupNorm and ReLU, each halving the image; average pool.

    A task's embedding is the mean over its support set. The first halving is the convolution's stride, the others
    are max-pools: after the source, but a first map at full size would be the largest of the whole learner.

    Args:
        sample_shape: (C, H, W) of an image, at least 2 x 2; small ones have fewer layers, down to one pixel.

    Raises:
        ValueError: a sample is no such image.
    """

    def __init__(self, sample_shape: tuple[int, ...]) -> None:
        super().__init__()
        before, height, width = image_shape("the set encoder", sample_shape, (2, 2))
        norm = norm_layer("group")
        self.layers = nn.Sequential()
        for index in range(min(LAYERS, min(height, width).bit_length() - 1)):
            layer = ConvNorm(before, CHANNELS, 3, 1 if index else 2, norm, nn.ReLU)
            self.layers.add_module(f"layer{index + 1}", layer)
            if index:
                self.layers.add_module(f"pool{index + 1}", nn.MaxPool2d(2))
            before = CHANNELS
        self.average = GlobalAverage()

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) to embeddings (n, 64)."""
        y: Tensor = self.average(self.layers(x))
        return y
