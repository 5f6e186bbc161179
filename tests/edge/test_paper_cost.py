"""The analytic model against the published tables (p-Meta, KDD 2022); MB is 1e6 bytes."""

from __future__ import annotations

import pytest
from edge_adapt.edge.cost import Layer
from edge_adapt.edge.paper_cost import (
    Block,
    activation_words,
    batch_peak_bytes,
    chain_blocks,
    head_peak_bytes,
    training_peak_bytes,
)


def conv4_84() -> tuple[Layer, ...]:
    """4Conv on 84x84 RGB images, 5 ways."""
    layers: list[Layer] = []
    channels, size = 3, 84
    for index in range(1, 5):
        words, pooled = 32 * size * size, 32 * (size // 2) ** 2
        macs = channels * 9
        layers.append(
            Layer(f"conv{index}", "conv", 32 * macs + 32, channels * size**2, words, channels, 32, 1, macs)
        )
        layers.append(Layer(f"norm{index}", "norm", 64, words, words, 32, 32, 8, 1, words, pooled))
        channels, size = 32, size // 2
    return (*layers, Layer("fc", "fc", 5 * 800 + 5, 800, 5, 800, 5, 1, 800, is_output=True))


def resnet12_84() -> tuple[list[Block], int, int]:
    """Blocks of {64, 128, 256, 512} channels: three 3x3 convs and a 1x1 shortcut, norm on all four."""
    blocks, weights, channels, size = [], 0, 3, 84
    for width in (64, 128, 256, 512):
        words, pooled = width * size * size, width * (size // 2) ** 2
        conv_inputs = 2 * channels * size**2 + 2 * words
        blocks.append(Block(conv_inputs + 4 * words, words, 3, pooled, working_maps=2))
        weights += 9 * width * channels + 2 * 9 * width * width + channels * width + 4 * 2 * width
        channels, size = width, size // 2
    return blocks, weights, 5 * 512 + 5


def test_4conv_at_batch_one_gives_table_2():
    table = conv4_84()
    blocks, weights, head = chain_blocks(table), sum(layer.weight_words for layer in table), 4005
    assert len(blocks) == 4
    assert training_peak_bytes(blocks, weights) / 1e6 == pytest.approx(2.065, abs=5e-4)
    assert head_peak_bytes(blocks, head) / 1e6 == pytest.approx(0.919, abs=5e-4)
    assert training_peak_bytes(blocks, weights - head) / 1e6 == pytest.approx(2.049, abs=5e-4)


def test_4conv_at_batch_25_gives_table_1():
    assert batch_peak_bytes(chain_blocks(conv4_84())) / 1e6 == pytest.approx(48.33, abs=5e-3)


def test_resnet12_at_batch_one_gives_table_2():
    blocks, backbone, head = resnet12_84()
    assert training_peak_bytes(blocks, backbone + head) / 1e6 == pytest.approx(54.699, abs=5e-4)
    assert head_peak_bytes(blocks, head) / 1e6 == pytest.approx(3.623, abs=5e-4)
    assert training_peak_bytes(blocks, backbone) / 1e6 == pytest.approx(54.689, abs=5e-4)


def test_the_figure_that_does_not_fit_is_block_one_alone():
    """ResNet12's published 370.44 MB is 25 times block 1; the rule, over all blocks, gives 567.5."""
    blocks, _, _ = resnet12_84()
    assert batch_peak_bytes(blocks[:1]) / 1e6 == pytest.approx(370.44, abs=5e-3)
    assert batch_peak_bytes(blocks) / 1e6 == pytest.approx(567.5, abs=0.05)


def test_peak_is_the_largest_prefix_not_the_sum():
    blocks = [Block(100, 50, 0, 0), Block(10, 5, 0, 0)]
    assert activation_words(blocks) == 150
