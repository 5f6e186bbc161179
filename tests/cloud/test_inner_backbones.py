"""Branches, residual sums, averages, gates and depthwise convolutions: meta-training against plain torch, float64.

The small variants have every part of the real ones: shortcuts with and without a convolution, overlapping
max-pools, averages over the map, squeeze-excite.
"""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.inner.base import Batch, Meta, MethodConfig
from edge_adapt.cloud.inner.device import adapt
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.inner.stand_ins import hard_sigmoid
from edge_adapt.cloud.models import BACKBONES, build_backbone
from edge_adapt.cloud.models.parts import SqueezeExcite
from edge_adapt.cloud.outer import METHODS
from torch import Tensor, nn
from torch.autograd import gradgradcheck

from .plain import PlainTask, plain_gradient

WAYS = 3
SMALL = {
    "resnet12": ((2, 8, 8), {"channels": (4, 6, 4)}),
    "resnet18": ((2, 16, 16), {"width": 0.125}),
    "resnet20": ((2, 8, 8), {"width": 0.5}),
    "mobilenet-v2": ((2, 16, 16), {"width": 0.125}),
    "mobilenet-v3-small": ((2, 16, 16), {"width": 0.125}),
    "efficientnet-b0": ((2, 16, 16), {"width": 0.125}),
    "ds-cnn": ((1, 12, 4), {"width": 0.125}),
    "mlp": ((5,), {"hidden": (8, 6)}),
}


class Clipped(nn.Module):
    """Hard sigmoid as it is defined."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x / 6 + 0.5, 0, 1)


def network_of(name: str) -> Network:
    """Norm scales and shifts at random, so that no ReLU sits at its kink."""
    shape, options = SMALL[name]
    module = build_backbone(name, shape, WAYS, 0, options).double()
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            nn.init.normal_(part.weight, 1.0, 0.3, generator)
            nn.init.normal_(part.bias, 0.0, 0.3, generator)
    network = Network(module, shape)
    for part in module.modules():  # the plain truth runs the module, and torch has no second derivative of it
        if isinstance(part, SqueezeExcite) and isinstance(part.gate, nn.Hardsigmoid):
            part.gate = Clipped()
    return network


def batch_of(name: str, tasks: int = 2, samples: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(2)

    def x() -> Tensor:
        return torch.randn(tasks, samples, *SMALL[name][0], dtype=torch.float64, generator=generator)

    y = (torch.arange(samples) % WAYS).expand(tasks, samples).contiguous()
    return Batch(x(), y, x(), y)


def prepared(name: str, method_name: str, **settings: object) -> tuple[Network, MethodConfig, Meta]:
    network = network_of(name)
    config = MethodConfig(inner_steps=2, inner_step_size=0.05, **settings)
    meta = METHODS[method_name](network, config).init(seed=3).to(torch.float64)
    return network, config, meta


def test_all_backbones_that_can_be_meta_trained_are_tried() -> None:
    assert SMALL.keys() | {"conv4"} == {name for name, entry in BACKBONES.items() if entry.meta_trains}


def test_the_hard_sigmoid_that_differentiates_twice_is_torchs() -> None:
    x = torch.linspace(-5, 5, 101, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(hard_sigmoid(x), nn.functional.hardsigmoid(x), rtol=1e-15, atol=1e-15)
    found, expected = (torch.autograd.grad(f(x).sum(), x)[0] for f in (hard_sigmoid, nn.Hardsigmoid()))
    torch.testing.assert_close(found, expected)
    assert gradgradcheck(lambda x: hard_sigmoid(x) * x, (x.detach()[::10].requires_grad_() + 0.05,))


@pytest.mark.parametrize(
    ("name", "method", "settings"),
    [
        *((name, "maml", {}) for name in SMALL),
        ("resnet12", "p-meta", {}),
        ("resnet20", "p-meta", {}),
        ("resnet12", "p-meta", {"attention_over": "sample"}),
    ],
)
def test_outer_gradient_equals_plain_double_backward(name: str, method: str, settings: dict) -> None:
    network, config, meta = prepared(name, method, **settings)
    batch = batch_of(name)
    result = METHODS[method](network, config).meta_gradient(meta, batch, progress=0.0)
    truth = plain_gradient(network, METHODS[method](network, config).config, meta, batch)
    assert result.grads.keys() == truth.keys()
    scale = max(float(value.abs().max()) for value in truth.values())
    for key, expected in truth.items():
        torch.testing.assert_close(result.grads[key], expected, rtol=1e-8, atol=1e-9 * scale, msg=key)


@pytest.mark.parametrize(("name", "frozen"), [("resnet12", 0), ("resnet12", 12), ("resnet20", 5)])
def test_device_adaptation_equals_the_mean_of_per_sample_steps(name: str, frozen: int) -> None:
    """Layers below `frozen` are not updated: the values that branches read are cached."""
    network, config, meta = prepared(name, "p-meta")
    alpha = meta.alpha.clone()
    alpha[:, :frozen] = 0
    meta = Meta({**meta.learned, "alpha": alpha}, meta.fixed)
    batch = batch_of(name)
    adapted = adapt(network, config, meta, batch.support_x, batch.support_y)
    for t in range(len(batch)):
        weights = {key: meta.learned[key].detach().requires_grad_() for key in network.parameters}
        for k in range(len(alpha)):
            task = PlainTask(network, config, meta.learned)
            moved = task.sample_step(weights, alpha[k], batch.support_x[t], batch.support_y[t])
            weights = {key: value.detach().requires_grad_() for key, value in moved.items()}
        for key, expected in weights.items():
            got = adapted.weights[key]
            got = got[t] if got.dim() > expected.dim() else got
            torch.testing.assert_close(got, expected.detach(), rtol=1e-8, atol=1e-10, msg=key)
