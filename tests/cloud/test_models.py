"""Backbones, the layer table of any module, and the network as a function of its weights."""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.inner.network import Network, forward
from edge_adapt.cloud.inner.ops import Wanted
from edge_adapt.cloud.models import BACKBONES, build_backbone
from torch import Tensor, nn


class Branches(nn.Module):
    """Two branches that meet again, functional and method calls between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = torch.relu(self.norm(self.left(x)) + self.right(x))
        y = nn.functional.max_pool2d(y, 2)
        return self.head(y.reshape(y.size(0), -1))


def run(network: Network, weights, known, wanted=("output",)):
    def call(index: int, x: Tensor) -> Tensor:
        values = [weights[name] for name in network.names(index)]
        return network.kind(index).forward(x, values, Wanted()).output

    return network.run(known, call, wanted)


@pytest.mark.parametrize(("channels", "size", "features"), [(1, 28, 32), (3, 84, 800)])
def test_conv4_has_nine_layers_and_the_expected_sizes(channels, size, features):
    network = Network(build_backbone("conv4", (channels, size, size), 5, 0), (channels, size, size))
    names = ["conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "conv4", "norm4", "fc"]
    assert [layer.name for layer in network.layers] == names
    assert [layer.is_output for layer in network.layers] == [False] * 8 + [True]
    conv1, norm1, fc = network.layers[0], network.layers[1], network.layers[-1]
    assert (conv1.weight_words, conv1.input_words) == (32 * 9 * channels + 32, channels * size**2)
    assert (norm1.relu_words, norm1.pooled_words) == (32 * size**2, 32 * (size // 2) ** 2)
    assert (norm1.groups, conv1.macs) == (8, 32 * size**2 * 9 * channels)
    assert (fc.input_words, fc.weight_words) == (features, 5 * features + 5)


def test_the_same_seed_builds_the_same_weights_and_leaves_torchs_generator_alone():
    before = torch.random.get_rng_state()
    one, two, other = (build_backbone("conv4", (1, 28, 28), 5, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_too_small_images_unknown_backbones_and_options_are_refused():
    with pytest.raises(ValueError, match=r"size must be at least 16 x 16, got \(1, 15, 15\)"):
        build_backbone("conv4", (1, 15, 15), 5, 0)
    with pytest.raises(ValueError, match=f"one of {', '.join(BACKBONES)}, got 'conv5'"):
        build_backbone("conv5", (1, 28, 28), 5, 0)
    with pytest.raises(ValueError, match=r"^conv4 has no option 'nrom'; it has norm, pool"):
        build_backbone("conv4", (1, 28, 28), 5, 0, {"nrom": "batch"})
    with pytest.raises(ValueError, match="norm must be one of group, batch, got 'layer'"):
        build_backbone("conv4", (1, 28, 28), 5, 0, {"norm": "layer"})


@pytest.mark.parametrize("module", [Branches(), build_backbone("conv4", (1, 17, 17), 3, 0)])
def test_running_the_graph_gives_the_modules_own_output(module):
    size = 8 if isinstance(module, Branches) else 17
    network = Network(module, (1, size, size))
    x = torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(0))
    (logits,) = run(network, network.weights(), {network.source: x})
    torch.testing.assert_close(logits, module(x))
    torch.testing.assert_close(forward(network, network.weights(), x), module(x))


@pytest.mark.parametrize("open_layers", [[0], [1], [2], [3], [4], [1, 2], [3, 4]])
def test_values_from_a_frontier_give_the_same_output(open_layers):
    network = Network(Branches(), (1, 8, 8))
    x, weights = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), network.weights()
    frontier = network.frontier(open_layers)
    known = dict(zip(frontier, run(network, weights, {network.source: x}, frontier), strict=True))
    for name in weights:
        index = next(i for i in range(5) if name in network.names(i))
        if index in open_layers:
            weights[name] = weights[name] + 0.1
    (expected,) = run(network, weights, {network.source: x})
    assert torch.equal(run(network, weights, known)[0], expected)


def test_frontier_of_a_branch_is_everything_that_the_open_part_reads():
    network = Network(Branches(), (1, 8, 8))
    assert [layer.name for layer in network.layers] == ["stem", "left", "norm", "right", "head"]
    assert set(network.frontier([2])) == {"left", "right"}
    assert set(network.frontier([1])) == {"stem", "right"}
    assert network.frontier([0]) == ("x",)


def test_pooling_before_relu_keeps_values_and_gradients():
    module = build_backbone("conv4", (1, 28, 28), 5, 0).double()
    network = Network(module, (1, 28, 28))
    x = torch.randn(4, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, :, :12] = 0.0  # ties in every pooling window
    weights = {name: value.requires_grad_() for name, value in network.weights().items()}
    (logits,) = run(network, weights, {network.source: x})
    found = torch.autograd.grad(logits.square().sum(), list(weights.values()))
    expected = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


class Loose(nn.Module):
    """A parameter outside any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.ones(1)), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1) * self.scale)


class Twice(nn.Module):
    """One layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(self.conv(x)).flatten(1))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Loose(), "parameter scale is used outside"),
        (Twice(), "layer conv is used 2 times"),
        (
            nn.Sequential(nn.InstanceNorm2d(1, affine=True), nn.Flatten(), nn.Linear(16, 2)),
            "layer 0: expected conv, linear, GroupNorm or BatchNorm, got InstanceNorm2d",
        ),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten()), "padding must be numbers of zeros"),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding_mode="reflect", padding=1)), "got .* of reflect"),
        (nn.Sequential(nn.ReLU(), nn.Flatten()), "no conv, linear, GroupNorm or BatchNorm layer"),
    ],
)
def test_modules_that_adaptation_cannot_see_through_are_refused(module, message):
    with pytest.raises(ValueError, match=message):
        Network(module, (1, 4, 4))
