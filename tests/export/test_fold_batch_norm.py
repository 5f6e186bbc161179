"""A folded BatchNorm computes what the trained network computed in evaluation mode."""

from __future__ import annotations

import copy

import pytest
import torch
from edge_adapt.export import ExportError
from edge_adapt.export.converters import ChannelAffine, fold_batch_norm
from torch import nn


class Shared(nn.Module):
    """One convolution is read twice, one BatchNorm stands behind a reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.side = nn.Conv2d(4, 6, 1)
        self.side_norm = nn.SyncBatchNorm(6)
        self.flat_norm = nn.BatchNorm1d(54, affine=False)
        self.head = nn.Linear(54, 3)

    def forward(self, x):
        y = self.stem(x)
        y = torch.relu(self.norm(y)) + y
        return self.head(self.flat_norm(self.side_norm(self.side(y)).flatten(1)))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) if x.sum() > 0 else self.norm(self.conv(-x))


class Activated(nn.BatchNorm2d):
    def forward(self, input):
        return torch.relu(super().forward(input))


def trained(module: nn.Module, *shape: int) -> nn.Module:
    """With statistics and parameters far from their initial values."""
    torch.manual_seed(0)
    module = module.double()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_(1, 2)
            part.running_var.uniform_(0.01, 4)
            part.num_batches_tracked += 7
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module


NETWORKS = {
    "images": (nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, eps=1e-3), nn.ReLU()), (2, 5, 5)),
    "signals": (nn.Sequential(nn.Conv1d(2, 4, 3, groups=2), nn.BatchNorm1d(4)), (2, 9)),
    "vectors": (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), (5,)),
    "volumes": (nn.Sequential(nn.Conv3d(2, 4, 2, bias=False), nn.BatchNorm3d(4)), (2, 3, 3, 3)),
    "several-readers": (Shared(), (2, 5, 5)),
    "first-layer": (nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3)), (2, 5, 5)),
    "the-module-itself": (nn.BatchNorm2d(2), (2, 5, 5)),
    "untraceable": (Branching(), (2, 5, 5)),
}


@pytest.mark.parametrize("into_conv", [False, True], ids=["separate", "into-conv"])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_evaluation_mode(name, into_conv):
    module, shape = NETWORKS[name]
    module = trained(module)
    x = torch.randn(6, *shape, dtype=torch.float64)
    folded, notes = fold_batch_norm(module.train(), into_conv=into_conv)
    expected = copy.deepcopy(module).eval()(x)
    assert torch.allclose(folded(x), expected, rtol=1e-12, atol=1e-12)
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert len(notes) == len(norms)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in folded.modules())


def test_float32_outputs_agree_to_a_millionth():
    module = trained(Shared()).float()
    x = torch.randn(6, 2, 5, 5)
    expected = copy.deepcopy(module).eval()(x)
    for into_conv in (False, True):
        found = fold_batch_norm(module, into_conv=into_conv)[0](x)
        assert (found - expected).abs().max() < 1e-6 * expected.abs().max()


def test_the_module_is_left_alone_and_the_copy_is_in_evaluation_mode():
    module = trained(Shared()).train()
    before = copy.deepcopy(module.state_dict())
    folded, _ = fold_batch_norm(module, into_conv=True)
    assert all(part.training for part in module.modules())
    assert not any(part.training for part in folded.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_by_default_every_norm_is_a_layer_of_its_own_and_convolutions_keep_their_weights():
    module = trained(Shared())
    folded, notes = fold_batch_norm(module)
    names = {name for name, part in folded.named_modules() if isinstance(part, ChannelAffine)}
    assert names == {"norm", "side_norm", "flat_norm"}
    assert torch.equal(folded.stem.weight, module.stem.weight)
    assert notes[0] == (
        "norm (BatchNorm2d, 4 channels): running statistics folded into a fixed scale and shift, layer 'norm'"
    )
    assert all(parameter.requires_grad for parameter in folded.parameters())


def test_only_convolutions_that_nobody_else_reads_take_a_norm_in():
    folded, notes = fold_batch_norm(trained(Shared()), into_conv=True)
    names = {name for name, part in folded.named_modules() if isinstance(part, ChannelAffine)}
    assert names == {"norm", "flat_norm"}
    assert notes[0] == "side_norm (SyncBatchNorm, 6 channels): folded into the weights of convolution 'side'"


def test_a_convolution_whose_weights_another_shares_takes_no_norm_in():
    module = trained(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)))
    module[2].weight = module[0].weight
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    folded, _ = fold_batch_norm(module, into_conv=True)
    assert isinstance(folded[1], ChannelAffine)
    assert torch.allclose(folded(x), module.eval()(x), rtol=1e-12)


def test_a_norm_with_two_names_becomes_one_affine_map():
    norm = nn.BatchNorm2d(2)
    folded, notes = fold_batch_norm(trained(nn.Sequential(norm, nn.ReLU(), norm)))
    assert folded[0] is folded[2]
    assert len(notes) == 1


def test_a_subclass_that_does_more_than_normalise_is_kept():
    module = trained(nn.Sequential(nn.Conv2d(2, 2, 1), Activated(2)))
    folded, notes = fold_batch_norm(module, into_conv=True)
    assert isinstance(folded[1], Activated)
    assert notes == ("1 (Activated, 2 channels): kept, since Activated has its own forward",)


def test_statistics_that_were_never_trained_are_noted():
    _, notes = fold_batch_norm(nn.Sequential(nn.BatchNorm2d(2)))
    assert notes[0].endswith("layer '0'; its statistics were never trained")


@pytest.mark.parametrize("into_conv", [False, True])
def test_live_statistics_are_refused_by_name_with_the_way_out(into_conv):
    module = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(
        ExportError, match=r"^module '1' \(BatchNorm2d\): .*; convert it with to_group_norm, or"
    ):
        fold_batch_norm(module, into_conv=into_conv)


def test_a_module_that_cannot_be_copied_is_refused_in_one_line():
    module = nn.Sequential(nn.Linear(2, 2))
    module.cache = module[0].weight * 2
    with pytest.raises(
        ExportError, match=r"^Sequential: the module cannot be copied \(RuntimeError: .*\); drop"
    ):
        fold_batch_norm(module)
