"""A transformer block of every spelling, end to end: captured, differentiated, expanded, adapted."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from .cases import example
from .ort import run_program
from .test_gradient_rules import check
from .test_onnx_expansions import assert_close
from .truth import truth

TOKENS, WIDTH = 6, 16


class Attention(nn.Module):
    """Self-attention of (N, TOKENS, WIDTH); the subclasses differ in how they write it."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def apart(self, value):
        return value.reshape(-1, TOKENS, self.heads, WIDTH // self.heads).transpose(1, 2)

    def together(self, value):
        return self.proj(value.transpose(1, 2).reshape(-1, TOKENS, WIDTH))


class Chunked(Attention):
    def forward(self, x):
        q, k, v = (self.apart(part) for part in self.qkv(x).chunk(3, dim=-1))
        scores = (q @ k.transpose(-2, -1)) * (WIDTH // self.heads) ** -0.5
        return self.together(scores.softmax(-1) @ v)


class Permuted(Attention):
    """timm's spelling."""

    def forward(self, x):
        shape = (x.shape[0], x.shape[1], 3, self.heads, WIDTH // self.heads)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        return self.together(F.scaled_dot_product_attention(q, k, v))


class Split(Attention):
    def forward(self, x):
        q, k, v = (self.apart(part) for part in self.qkv(x).split(WIDTH, dim=2))
        return self.together(F.scaled_dot_product_attention(q, k, v))


class Einsum(Attention):
    """lucidrains' spelling."""

    def forward(self, x):
        q, k, v = (self.apart(part) for part in self.qkv(x).chunk(3, dim=-1))
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * (WIDTH // self.heads) ** -0.5
        return self.together(torch.einsum("bhij,bhjd->bhid", scores.softmax(dim=-1), v))


class Separate(Attention):
    """Three layers, one head, no transposes: keyword spotting transformers."""

    def __init__(self, heads: int) -> None:
        super().__init__(heads)
        self.qkv = nn.Linear(WIDTH, WIDTH)
        self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        scores = torch.matmul(self.qkv(x), self.key(x).permute(0, 2, 1)) / WIDTH**0.5
        return self.proj(torch.softmax(scores, dim=2) @ self.value(x))


class Net(nn.Module):
    """Patches, two blocks' worth of attention with residuals, a mean over tokens, a head."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Conv2d(2, WIDTH, 2, stride=2)
        self.attention = attention
        self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = x + self.attention(x)
        x = x + self.down(torch.relu(self.up(x)))
        return self.head(x.mean(1))


CASES = {
    "chunked-4": lambda: Chunked(4),
    "split-4": lambda: Split(4),
    "split-1": lambda: Split(1),
    "permuted-2": lambda: Permuted(2),
    "einsum-2": lambda: Einsum(2),
    "separate": lambda: Separate(1),
}


@cache
def case(name: str):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return example(Net(CASES[name]()), (2, 4, 6), attended=False)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_a_block_are_those_of_autograd(name):
    one = case(name)
    check(one, truth(one.module, one.images, one.labels))


@pytest.mark.parametrize("name", CASES)
def test_standard_operators_compute_the_same_block(name):
    one = case(name)
    expected = truth(one.module, one.images, one.labels)
    found = run_program(one, ["loss", *one.gradients])
    assert_close(found, {**expected.grads, "loss": np.float64(expected.loss)})


def test_every_head_is_a_product_of_matrices():
    kinds = [op.kind for op in case("chunked-4").program.ops(("forward",))]
    assert kinds.count("MatMul") == 2
    assert kinds.count("Softmax") == kinds.count("Scale") == 1
    assert kinds.count("Slice") == 3
