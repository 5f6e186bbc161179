"""Bytes per layer and what clipping keeps, by hand; how the dynamic peak moves with the layer mask."""

from __future__ import annotations

from itertools import product

import pytest
from edge_adapt.edge.cost import Layer, accumulator_bytes, kept_bound, peak_dynamic_bytes

CONV1 = Layer("conv1", "conv", 320, 784, 25088, 1, 32, 1, 9)
NORM1 = Layer("norm1", "norm", 64, 25088, 25088, 32, 32, 8, 1, relu_words=25088, pooled_words=6272)
CONV2 = Layer("conv2", "conv", 9248, 6272, 6272, 32, 32, 1, 288)
NORM2 = Layer("norm2", "norm", 64, 6272, 6272, 32, 32, 8, 1, relu_words=6272, pooled_words=1568)
CONV3 = Layer("conv3", "conv", 9248, 1568, 1568, 32, 32, 1, 288)
NORM3 = Layer("norm3", "norm", 64, 1568, 1568, 32, 32, 8, 1, relu_words=1568, pooled_words=288)
CONV4 = Layer("conv4", "conv", 9248, 288, 288, 32, 32, 1, 288)
NORM4 = Layer("norm4", "norm", 64, 288, 288, 32, 32, 8, 1, relu_words=288, pooled_words=32)
FC = Layer("fc", "fc", 165, 32, 5, 32, 5, 1, 32, is_output=True)
TABLE = (CONV1, NORM1, CONV2, NORM2, CONV3, NORM3, CONV4, NORM4, FC)
DENSE = (True,) * 9


def test_dense_peak_of_4conv_by_hand():
    """Backward through block 1: image, normalised map, masks, pooled and full gradient, accumulators."""
    words = 784 + 25088 + 25088 + 6272 + (320 + 3 * 9248 + 4 * 64 + 165)
    masks = 25088 // 8 + 6272 // 4
    assert peak_dynamic_bytes(TABLE, DENSE) == 4 * words + masks


def test_head_only_peak_is_the_forward_pass_of_block_one_and_one_accumulator():
    head = [layer.is_output for layer in TABLE]
    assert peak_dynamic_bytes(TABLE, head) == 4 * (25088 + 6272 + 165)


def test_freezing_the_bottom_lowers_the_peak_and_freezing_only_the_top_leaves_its_maps():
    two_blocks = (False, False, False, *DENSE[3:])
    top = (*DENSE[:6], False, False, False)
    dense = peak_dynamic_bytes(TABLE, DENSE)
    assert 0.55 < peak_dynamic_bytes(TABLE, two_blocks) / dense < 0.6
    assert dense - peak_dynamic_bytes(TABLE, top) == 4 * (9248 + 64 + 165)


@pytest.mark.parametrize("index", range(9))
def test_updating_one_layer_more_never_lowers_the_peak(index):
    for mask in product([False, True], repeat=9):
        if any(mask) and not mask[index]:
            more = [on or i == index for i, on in enumerate(mask)]
            assert peak_dynamic_bytes(TABLE, more) > peak_dynamic_bytes(TABLE, mask)


def test_a_conv_without_a_norm_below_stores_its_input():
    chain = (CONV1, CONV2, CONV3)
    only_convs = peak_dynamic_bytes(chain, (False, True, True))
    assert only_convs == max(4 * (784 + 25088), 4 * (6272 + 1568 + 6272 + 6272)) + 4 * 2 * 9248


def test_no_updated_layer_is_refused():
    with pytest.raises(ValueError, match="updates no layer"):
        peak_dynamic_bytes(TABLE, [False] * 9)


def test_a_mask_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="zip"):
        accumulator_bytes(TABLE, [True] * 8)


def test_mask_bytes_are_rounded_up():
    assert Layer("n", "norm", 2, 9, 9, 1, 1, 1, 1, relu_words=9, pooled_words=5).mask_bytes == 2 + 2


def test_the_most_channels_clipping_keeps_are_counted_in_integers():
    """0.1 * 10 and 0.7 * 10 in binary floating point lie beside 1 and 7."""
    assert [kept_bound(channels, 0.3) for channels in (1, 2, 10, 20, 32)] == [1, 1, 7, 14, 22]
    assert [kept_bound(10, rho) for rho in (0.0, 0.1, 0.7, 1.0)] == [10, 9, 3, 1]
    assert kept_bound(32, 0.3, cap=8) == 8
    assert kept_bound(10, 0.7, cap=4) == 3
