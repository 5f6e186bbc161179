"""The model zoo against what is published: parameters, multiply-accumulates, and how the modules behave."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.models import (
    BACKBONES,
    DSCNN,
    MLP,
    Conv4,
    EfficientNet,
    MobileNetV2,
    MobileNetV3Small,
    MotionCNN,
    ResNet12,
    ResNet18,
    ResNet20,
    ViT,
    build_backbone,
)
from edge_adapt.cloud.models.parts import groups_of
from edge_adapt.edge.paper_cost import Block, training_peak_bytes
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

IMAGENET, OUTPUTS = (3, 224, 224), 3
SMALL = {
    "conv4": ((2, 16, 20), {}),
    "resnet12": ((2, 16, 20), {"channels": (8, 8, 16, 16)}),
    "resnet18": ((3, 32, 32), {"width": 0.125}),
    "resnet20": ((3, 16, 12), {"width": 0.5}),
    "mobilenet-v2": ((3, 32, 32), {"width": 0.25}),
    "mobilenet-v3-small": ((3, 32, 32), {"width": 0.25}),
    "efficientnet-b0": ((3, 32, 32), {"width": 0.25}),
    "ds-cnn": ((1, 20, 10), {"width": 0.25}),
    "motion-cnn": ((6, 40), {"width": 0.25}),
    "mlp": ((7,), {"hidden": (9, 8)}),
    "vit": ((3, 16, 8), {"dim": 16, "heads": 2}),
}
"""A quick variant of every backbone, images not square."""


class Published(NamedTuple):
    """A backbone at the size of a paper, its parameters, and multiply-accumulates where they are known."""

    build: Callable[..., nn.Module]
    shape: tuple[int, ...]
    outputs: int
    options: dict[str, float]
    parameters: int
    macs: float | None


CONV4_PARAMETERS = (3 * 9 + 1) * 32 + 3 * (32 * 9 + 1) * 32 + 4 * 2 * 32 + 801 * 5
PUBLISHED = {
    "4Conv": Published(Conv4, (3, 84, 84), 5, {}, CONV4_PARAMETERS, None),
    "ResNet12": Published(ResNet12, (3, 84, 84), 5, {}, 7_999_365, None),
    "ResNet18": Published(ResNet18, IMAGENET, 1000, {}, 11_689_512, 1.814e9),
    "ResNet20, projections": Published(ResNet20, (3, 32, 32), 10, {}, 272_474, 40.8e6),
    "MobileNetV2": Published(MobileNetV2, IMAGENET, 1000, {}, 3_504_872, 300e6),
    "MobileNetV2 x 1.4": Published(MobileNetV2, IMAGENET, 1000, {"width": 1.4}, 6_108_776, 582e6),
    "MobileNetV3-small": Published(MobileNetV3Small, IMAGENET, 1000, {}, 2_542_856, 56e6),
    "EfficientNet-B0": Published(EfficientNet, IMAGENET, 1000, {}, 5_288_548, 386e6),
    "EfficientNet-B1": Published(EfficientNet, (3, 240, 240), 1000, {"depth": 1.1}, 7_794_184, 0.69e9),
    "EfficientNet-B2": Published(EfficientNet, (3, 260, 260), 1000, {"width": 1.1, "depth": 1.2}, 9_109_994, 1.0e9),
    "DS-CNN": Published(DSCNN, (1, 49, 10), 12, {}, 23_756, 5.4e6 / 2),
    "MLP, p-Meta's policy": Published(MLP, (20,), 6, {}, 2100 + 10100 + 606, None),
    "MLP, MAML's sinusoids": Published(MLP, (1,), 1, {"hidden": (40, 40)}, 80 + 1640 + 41, None),
}  # fmt: skip
"""Parameters: the papers' figures to the last digit of their public implementations."""


def small(name: str, **options: object) -> nn.Module:
    shape, own = SMALL[name]
    return build_backbone(name, shape, OUTPUTS, 0, {**own, **options})


def noise(name: str, samples: int) -> Tensor:
    return torch.randn(samples, *SMALL[name][0], generator=torch.Generator().manual_seed(0))


def test_every_backbone_has_a_small_variant_here() -> None:
    assert SMALL.keys() == BACKBONES.keys()


@pytest.mark.parametrize("case", PUBLISHED)
def test_parameters_and_multiply_accumulates_are_the_published_numbers(case: str) -> None:
    """Multiply-accumulates have two or three digits; here half of what torch counts, without norms."""
    build, shape, outputs, options, parameters, macs = PUBLISHED[case]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        module = build(shape, outputs, **options)
        module(torch.empty(1, *shape))
    assert sum(value.numel() for value in module.parameters()) == parameters
    assert macs is None or counter.get_total_flops() / 2 == pytest.approx(macs, rel=0.02)


def test_resnet12s_layer_table_gives_the_papers_memory() -> None:
    """p-Meta, table 2: 54.699 MB for MAML, from the sizes in the table."""
    network = Network(ResNet12((3, 84, 84), 5), (3, 84, 84))
    blocks = []
    for index in range(1, 5):
        rows = [layer for layer in network.layers if layer.name.startswith(f"block{index}.")]
        assert len(rows) == 8
        pooled = [layer.pooled_words for layer in rows if layer.pooled_words]
        relus = [layer.relu_words for layer in rows if layer.kind == "norm" and layer.relu_words]
        assert len(pooled) == 1
        stored = sum(layer.input_words for layer in rows)
        blocks.append(Block(stored, rows[0].output_words, len(relus), pooled[0], working_maps=2))
    weights = sum(layer.weight_words for layer in network.layers)
    assert training_peak_bytes(blocks, weights) / 1e6 == pytest.approx(54.699, abs=5e-4)


@pytest.mark.parametrize("name", SMALL)
def test_outputs_have_the_right_shape_and_depend_on_every_parameter(name: str) -> None:
    module = small(name)
    y = module(noise(name, 2))
    assert y.shape == (2, OUTPUTS)
    grads = torch.autograd.grad(y[:, 0].square().sum(), list(module.parameters()))
    dead = [n for (n, _), g in zip(module.named_parameters(), grads, strict=True) if not g.abs().max() > 0]
    assert dead == []


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_is_used_once(name: str) -> None:
    """By the module that owns it, which runs once."""
    traced = fx.symbolic_trace(small(name))
    used = [str(node.target) for node in traced.graph.nodes if node.op in ("call_module", "get_attr")]
    owned = {n if n in used else n.rsplit(".", 1)[0] for n, _ in traced.named_parameters()}
    assert all(used.count(owner) == 1 for owner in owned)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("mlp", "vit")])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_in_evaluation_mode_a_sample_does_not_see_its_neighbours(name: str, norm: str) -> None:
    module, x = small(name, norm=norm), noise(name, 4)
    kinds = {type(part) for part in module.modules()}
    assert (nn.GroupNorm in kinds) == (norm == "group")
    module(10 * x)  # moves running statistics, where there are any
    module.eval()
    together = module(x)
    alone = torch.cat([module(x[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    changed = module(torch.cat([x[:1], -x[1:]]))
    torch.testing.assert_close(together[:1], changed[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["conv4", "resnet12"])
def test_average_pooling_is_an_option(name: str) -> None:
    kinds = [type(part) for part in small(name, pool="average").modules()]
    assert kinds.count(nn.AvgPool2d) == 4
    assert nn.MaxPool2d not in kinds
    with pytest.raises(ValueError, match="pool must be one of max, average, got 'min'"):
        small(name, pool="min")


def test_average_pooling_averages() -> None:
    """Where every map is constant, both pools agree."""
    x = torch.ones(1, 2, 16, 20)
    for pool in ("max", "average"):
        module = small("conv4", pool=pool)
        first = nn.Sequential(module.relu1, module.pool1)(torch.full((1, 1, 4, 4), 3.0))
        assert first.flatten().tolist() == [3.0] * 4
        assert module(x).shape == (1, OUTPUTS)


def test_groups_leave_at_least_two_channels() -> None:
    for channels in range(2, 1300):
        groups = groups_of(channels)
        assert channels % groups == 0
        assert channels // groups >= 2
    assert [groups_of(channels) for channels in (1, 8, 16, 24, 32, 12)] == [1, 4, 8, 8, 8, 4]


@pytest.mark.parametrize("name", SMALL)
def test_the_table_says_which_backbones_can_be_meta_trained(name: str) -> None:
    if BACKBONES[name].meta_trains:
        assert Network(small(name), SMALL[name][0]).layers[-1].is_output
    else:
        with pytest.raises(
            ValueError, match=r"layer \S+: expected conv, linear, GroupNorm or BatchNorm, got (Conv1d|LayerN)"
        ):
            Network(small(name), SMALL[name][0])


@pytest.mark.parametrize("name", BACKBONES)
def test_the_papers_sample_shape_fits(name: str) -> None:
    entry = BACKBONES[name]
    with torch.device("meta"):
        assert entry.build(entry.sample_shape, 7)(torch.empty(2, *entry.sample_shape)).shape == (2, 7)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResNet12((3, 15, 16), 5), r"ResNet12 takes .* at least 16 x 16, got \(3, 15, 16\)"),
        (lambda: MobileNetV2((96, 96), 5), r"MobileNetV2 takes samples \(channels, height, width\)"),
        (lambda: MobileNetV2((3, 96, 96), 5, width=0.0), r"width must be above 0, got 0\.0"),
        (lambda: MotionCNN((9, 15), 5), r"length at least 16, got \(9, 15\)"),
        (lambda: MotionCNN((1, 9, 128), 5), r"takes samples \(channels, length\)"),
        (lambda: MLP((), 5), r"expected sample_shape and hidden of sizes above 0, got \(\) and"),
        (lambda: MLP((3,), 5, hidden=(4, 0)), r"got \(3,\) and \(4, 0\)"),
        (lambda: ViT((3, 30, 32), 5), r"multiples of patch .* got 30 x 32 with patch 4"),
        (lambda: ViT((3, 32, 32), 5, heads=3), r"dim 128 with heads 3"),
        (lambda: DSCNN((1, 9, 10), 5), r"at least 10 x 4, got \(1, 9, 10\)"),
        (lambda: Conv4((1, 28, 28), 5, norm="layer"), r"norm must be one of group, batch"),
    ],
)  # fmt: skip
def test_samples_that_do_not_fit_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
