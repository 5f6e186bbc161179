"""A trained BatchNorm network as a GroupNorm network: what re-estimation repairs."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from edge_adapt.export import ExportError
from edge_adapt.export.converters import to_group_norm
from edge_adapt.export.converters.group_norm import group_count
from torch import nn
from torch.nn import functional as F

CLASSES, SIZE = 8, 12


def samples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy, shifted, brightness-changed images of eight random patterns."""
    patterns = torch.randn(CLASSES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(99))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=random)
    shifts = torch.randint(-1, 2, (count, 2), generator=random).tolist()
    images = torch.stack([
        torch.roll(patterns[label], shift, (1, 2)) for label, shift in zip(labels, shifts, strict=True)
    ])  # fmt: skip
    level = torch.rand(count, 1, 1, 1, generator=random) * 2
    return images + level + torch.randn(images.shape, generator=random) * 0.7, labels


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 24, 3, 2, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Conv2d(24, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 4, CLASSES),
    )  # fmt: skip


@cache
def trained() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = network()
        images, labels = samples(1024, 1)
        optimizer = torch.optim.Adam(module.parameters(), 3e-3)
        for _ in range(6):
            for batch in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(module(images[batch]), labels[batch]).backward()
                optimizer.step()
    return module.eval()


def accuracy(module: nn.Module) -> float:
    images, labels = samples(1000, 2)
    with torch.no_grad():
        return float((module(images).argmax(1) == labels).double().mean())


def distance(module: nn.Module) -> float:
    """Root mean square difference of the logits to those of the original."""
    images, _ = samples(1000, 2)
    with torch.no_grad():
        return float((module(images) - trained()(images)).square().mean().sqrt())


def test_re_estimation_restores_what_plain_copying_loses():
    calibration, _ = samples(256, 3)
    copied, _ = to_group_norm(trained())
    estimated, _ = to_group_norm(trained(), images=calibration)
    assert accuracy(trained()) > 0.95
    assert accuracy(estimated) > accuracy(copied) + 0.02
    assert distance(estimated) < 0.8 * distance(copied)


def test_means_and_deviations_per_channel_are_those_of_the_original():
    module = copy.deepcopy(trained()).double()
    calibration = samples(64, 3)[0].double()
    converted, _ = to_group_norm(module, images=calibration)
    for depth in (2, 5, 8):
        with torch.no_grad():
            expected, found = module[:depth](calibration), converted[:depth](calibration)
        for moment in (torch.mean, torch.std):
            assert torch.allclose(moment(found, (0, 2, 3)), moment(expected, (0, 2, 3)), rtol=1e-9, atol=1e-9)
    assert torch.equal(torch.sign(converted[1].weight), torch.sign(module[1].weight))


def test_without_images_scale_and_bias_are_copied():
    converted, notes = to_group_norm(trained(), groups=4)
    assert torch.equal(converted[4].weight, trained()[4].weight)
    assert torch.equal(converted[4].bias, trained()[4].bias)
    assert (converted[4].num_groups, converted[4].eps) == (4, trained()[4].eps)
    assert notes[1] == (
        "4 (BatchNorm2d, 24 channels): GroupNorm of 4 groups, scale and bias copied; calibrate with images or train on"
    )
    assert isinstance(trained()[4], nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("channels", "groups", "expected"),
    [(32, 8, 8), (24, 8, 8), (20, 8, 5), (7, 8, 1), (14, 8, 7), (8, 8, 4), (2, 8, 1), (1, 8, 1), (64, 1, 1)],
)
def test_groups_are_the_largest_divisor_with_two_channels_each(channels, groups, expected):
    assert group_count(channels, groups) == expected
    assert nn.GroupNorm(group_count(channels, groups), channels)


def test_vectors_are_not_normalised_to_signs():
    converted, _ = to_group_norm(nn.Sequential(nn.BatchNorm1d(16), nn.BatchNorm1d(12)))
    assert [norm.num_groups for norm in converted] == [2, 1]


def test_channels_that_never_vary_get_the_original_mean():
    module = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4)).double().eval()
    nn.init.zeros_(module[0].weight)
    x = torch.randn(5, 1, 3, 3, dtype=torch.float64)
    converted, _ = to_group_norm(module, images=x)
    assert torch.allclose(converted(x), module(x), atol=1e-9)


def test_a_norm_with_live_statistics_and_without_parameters_is_converted():
    module = nn.Sequential(nn.BatchNorm2d(4, affine=False, track_running_stats=False))
    x = torch.randn(16, 4, 3, 3) * 3 + 1
    converted, _ = to_group_norm(module, images=x)
    assert torch.allclose(converted(x).std((0, 2, 3)), module.eval()(x).std((0, 2, 3)), rtol=1e-4)


def test_norms_that_run_twice_or_never_are_refused_by_name_when_calibrating():
    norm = nn.BatchNorm2d(4)
    x = torch.randn(2, 4, 3, 3)
    with pytest.raises(ExportError, match="module '0' runs more than once; give every use its own"):
        to_group_norm(nn.Sequential(norm, nn.ReLU(), norm), images=x)
    module = nn.Sequential(nn.BatchNorm2d(4))
    module[0].idle = nn.BatchNorm2d(4)
    idle = nn.Module()
    idle.used, idle.idle = nn.Identity(), norm
    idle.forward = lambda x: x
    with pytest.raises(ExportError, match="module 'idle' never runs on the calibration images"):
        to_group_norm(idle, images=x)


def test_no_groups_are_refused():
    with pytest.raises(ExportError, match="groups: expected at least 1, got 0"):
        to_group_norm(trained(), groups=0)
