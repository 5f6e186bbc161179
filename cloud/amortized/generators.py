"""What turns sums over a support set into parameters: FiLM from an embedding, a classifier from class means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .film import neutral

START = 1e-3
"""Standard deviation of the last layer's initial weights: training starts where nothing is generated yet."""


class FilmGenerator(nn.Module):
    """Three linear layers from a task's embedding to the parameters of all films, which start at 1 and 0.

    Args:
        embedding: its length E.
        sizes: channels of each film.
    """

    def __init__(self, embedding: int, sizes: Sequence[int]) -> None:
        super().__init__()
        start = neutral(sizes)
        self.first = nn.Linear(embedding, embedding)
        self.second = nn.Linear(embedding, embedding)
        self.out = nn.Linear(embedding, len(start))
        self.relu = nn.ReLU()
        nn.init.normal_(self.out.weight, std=START)
        with torch.no_grad():
            self.out.bias.copy_(start)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (1, E) to FiLM parameters (1, F): for each film [scale (C), shift (C)]."""
        y: Tensor = self.out(self.relu(self.second(self.relu(self.first(x)))))
        return y


class HeadGenerator(nn.Module):
    """A linear classifier from class means, each class on its own: a straight path beside three linear layers.

    Training starts at weights mean / sqrt(D) and biases 0. Nothing is added to all classes alike: the softmax would
    not see it.

    Args:
        features: D.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.straight = nn.Linear(features, features + 1, bias=False)
        self.first = nn.Linear(features, features)
        self.second = nn.Linear(features, features)
        self.out = nn.Linear(features, features + 1, bias=False)
        self.relu = nn.ReLU()
        nn.init.normal_(self.out.weight, std=START)
        with torch.no_grad():
            self.straight.weight.copy_(torch.eye(features + 1, features) / math.sqrt(features))

    def forward(self, means: Tensor) -> Tensor:
        """Class means (ways, D) to weights and, in the last column, biases: (ways, D + 1)."""
        y: Tensor = self.straight(means) + self.out(self.relu(self.second(self.relu(self.first(means)))))
        return y
