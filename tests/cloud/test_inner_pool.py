"""Max-pooling against torch: values, where ties send the gradient, second derivatives."""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.inner.pool import max_pool, window_of
from torch import nn
from torch.autograd import gradgradcheck
from torch.nn import functional as F


@pytest.mark.parametrize("window", [(2, 2), (3, 3), (3, 2), (1, 1), (4, 1)])
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("levels", [2, 1000])
def test_values_and_gradients_are_torchs_also_in_ties(window, size, levels):
    """With two levels nearly every window has ties."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(levels, (3, 2, *size), generator=generator).double().requires_grad_()
    y, expected = max_pool(x, window), F.max_pool2d(x, window)
    assert torch.equal(y, expected)
    weight = torch.randn(y.shape, dtype=torch.float64, generator=generator)
    found, wanted = (torch.autograd.grad((out * weight).sum(), x)[0] for out in (y, expected))
    assert torch.equal(found, wanted)


def test_it_differentiates_twice():
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert gradgradcheck(lambda v: max_pool(v, (2, 2)).square(), x.requires_grad_())


@pytest.mark.parametrize(
    ("part", "window"),
    [
        (nn.MaxPool2d(2), (2, 2)),
        (nn.MaxPool2d((3, 2)), (3, 2)),
        (nn.MaxPool2d(3, stride=2), None),
        (nn.MaxPool2d(2, padding=1), None),
        (nn.MaxPool2d(2, dilation=2), None),
        (nn.MaxPool2d(2, ceil_mode=True), None),
        (nn.MaxPool2d(2, return_indices=True), None),
        (nn.AvgPool2d(2), None),
    ],
)
def test_only_windows_that_tile_the_map_are_taken(part, window):
    assert window_of(part) == window
