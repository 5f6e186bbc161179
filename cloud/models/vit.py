"""ViT of four blocks: patches, learned positions, multi-head self-attention, mean over tokens, fc."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .parts import Shape, image_shape


class Patches(nn.Module):
    """Square patches to tokens: (N, C, H, W) to (N, T, D) by a convolution whose stride is its size."""

    def __init__(self, channels: int, patch: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Embed, then rows of patches one after the other."""
        y: Tensor = self.conv(x)
        return y.flatten(2).transpose(1, 2)


class Positions(nn.Module):
    """Adds a learned embedding (T, D), normal with deviation .02 at the start."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.02 * torch.randn(tokens, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) to the same shape."""
        return x + self.embedding


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(D / heads)) v for every head; one linear layer makes q, k and v."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.split = (heads, dim // heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) to the same shape."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = self._by_head(q), self._by_head(k), self._by_head(v)
        scores = torch.matmul(q, k.transpose(2, 3)) * self.split[1] ** -0.5
        mixed = torch.matmul(torch.softmax(scores, dim=-1), v)
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y

    def _by_head(self, x: Tensor) -> Tensor:
        """(N, T, D) to (N, heads, T, D / heads)."""
        return torch.unflatten(x, 2, self.split).transpose(1, 2)


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) with GELU."""

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads)
        self.mlp_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, ratio * dim)
        self.gelu = nn.GELU()
        self.project = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        y: Tensor = x + self.project(self.gelu(self.expand(self.mlp_norm(x))))
        return y


class ViT(nn.Module):
    """Pre-norm transformer without class token: the head reads the mean over the normalised tokens.

    Args:
        sample_shape: (C, H, W) of an image; height and width are multiples of the patch.
        outputs: of the classifier.
        patch: side of a patch in pixels.
        dim: width D of a token.
        heads: of the attention; they divide D.
        ratio: hidden units of a block's MLP, in multiples of D.
        blocks: of the transformer.

    Raises:
        ValueError: the patch does not divide the image, or the heads the width.
    """

    def __init__(
        self,
        sample_shape: Shape,
        outputs: int,
        patch: int = 4,
        dim: int = 128,
        heads: int = 4,
        ratio: int = 2,
        blocks: int = 4,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape("ViT", sample_shape, (patch, patch))
        if height % patch or width % patch or dim % heads:
            raise ValueError(
                f"ViT needs height and width in multiples of patch and dim in multiples of heads, got "
                f"{height} x {width} with patch {patch}, dim {dim} with heads {heads}"
            )
        self.patches = Patches(channels, patch, dim)
        self.positions = Positions((height // patch) * (width // patch), dim)
        for index in range(1, blocks + 1):
            self.add_module(f"block{index}", TransformerBlock(dim, heads, ratio))
        self.norm = nn.LayerNorm(dim)
        self.average = MeanOverTokens()
        self.fc = nn.Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) to logits (N, outputs)."""
        for part in self.children():
            x = part(x)
        return x


class MeanOverTokens(nn.Module):
    """(N, T, D) to (N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        """Mean over the tokens."""
        return x.mean(1)
