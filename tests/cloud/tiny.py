"""A tiny backbone with two residual blocks, and tasks for it, for exact tests in float64."""

from __future__ import annotations

from collections import OrderedDict

import torch
from edge_adapt.cloud.amortized import LEARNERS
from edge_adapt.cloud.amortized.mahalanobis import class_means
from edge_adapt.cloud.inner.base import MethodConfig
from edge_adapt.cloud.lite import LiteConfig
from edge_adapt.cloud.models.parts import GlobalAverage
from edge_adapt.cloud.tasks.task import Stored, Task
from torch import nn

SHAPE = (2, 8, 8)
LABELS = torch.tensor([0, 1, 1, 0, 1, 2])


class Block(nn.Module):
    """tanh, not ReLU: finite differences need a smooth function."""

    def __init__(self, before, after, norm):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm = norm(after)
        self.second = nn.Conv2d(after, after, 3, stride=2, padding=1)

    def forward(self, x):
        return torch.tanh(self.second(torch.tanh(self.norm(self.first(x)))))


def tiny(norm=lambda channels: nn.GroupNorm(2, channels), outputs=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        parts = {"block1": Block(2, 4, norm), "block2": Block(4, 6, norm), "average": GlobalAverage()}
        return nn.Sequential(OrderedDict(parts, fc=nn.Linear(6, outputs)))


def task(labels=LABELS, queries=4, key=(0, 0), samples=Stored, shape=SHAPE):
    generator = torch.Generator().manual_seed(17)
    x = torch.randn(len(labels), *shape, generator=generator) + labels.reshape(-1, 1, 1, 1)
    query_y = torch.arange(queries) % (int(labels.max()) + 1)
    query = torch.randn(queries, *shape, generator=generator) + query_y.reshape(-1, 1, 1, 1)
    return Task(samples(x), labels, Stored(query), query_y, int(labels.max()) + 1, key)


def learner_of(name, lite=None, module=None, **settings):
    """A learner and float64 meta-parameters whose generators do more than at the start of a training."""
    learner = LEARNERS[name](module or tiny(), SHAPE, MethodConfig(**settings), lite or LiteConfig())
    meta = learner.init(3).to(torch.float64)
    for key, value in meta.learned.items():
        if key.endswith("generator.out.weight"):
            value.mul_(256)
    if name == "cnaps":
        tell_apart(meta.learned, class_means(learner.exact(meta, task()).features, LABELS, 3))
    return learner, meta


def tell_apart(weights, x):
    """Put the ReLUs of CNAPs' head generator where class means x (ways, D) lie on both sides of each."""
    for layer in ("first", "second"):
        product = x @ weights[f"head_generator.{layer}.weight"].T
        bias = -product.mean(0).float().double()  # a number of both precisions, as all others
        weights[f"head_generator.{layer}.bias"] = bias
        x = torch.relu(product + bias)
