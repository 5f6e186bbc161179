"""Every method on every backbone of the papers, and on regression: two outer steps move what is learned."""

from __future__ import annotations

import math

import pytest
import torch
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.losses import CROSS_ENTROPY, SQUARED_ERROR, Loss
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.outer import METHODS, Batch, MethodConfig
from edge_adapt.cloud.run import adam
from torch import Tensor

OUTPUTS, TASKS, SAMPLES = 3, 2, 3
SMALL = {
    "mlp": ((5,), {"hidden": (8, 6)}),
    "conv4": ((2, 16, 16), {}),
    "resnet12": ((2, 8, 8), {"channels": (4, 6, 4)}),
    "resnet20": ((2, 8, 8), {"width": 0.5}),
    "resnet18": ((2, 16, 16), {"width": 0.125}),
}
PROBLEMS = [(name, CROSS_ENTROPY) for name in SMALL] + [("mlp", SQUARED_ERROR)]


def batch_of(shape: tuple[int, ...], loss: Loss) -> Batch:
    generator = torch.Generator().manual_seed(2)

    def x() -> Tensor:
        return torch.randn(TASKS, SAMPLES, *shape, generator=generator)

    def y() -> Tensor:
        if loss is SQUARED_ERROR:
            return torch.randn(TASKS, SAMPLES, OUTPUTS, generator=generator)
        return (torch.arange(SAMPLES) % OUTPUTS).expand(TASKS, SAMPLES).contiguous()

    return Batch(x(), y(), x(), y())


def two_steps(
    name: str, network: Network, batch: Batch
) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """Learned values before and after, and the last query loss; the outer step is that of the training loop."""
    method = METHODS[name](network, MethodConfig(inner_steps=2, inner_step_size=0.02))
    meta = method.init(seed=0)
    start, moments, loss = meta.learned, adam.init(meta.learned), math.nan
    fixed = {key: value.clone() for key, value in meta.fixed.items()}
    for step in (1, 2):
        result = method.meta_gradient(meta, batch, progress=step / 2)
        rates = {key: group["lr"] for group in method.param_groups(meta, 1e-3) for key in group["names"]}
        learned, moments = adam.update(meta.learned, result.grads, moments, rates)
        meta = method.after_step(type(meta)(learned, meta.fixed), result, step / 2)
        loss = result.metrics["query_loss"]
    assert all(torch.equal(meta.fixed[key], fixed[key]) for key in fixed if key != "benefit")
    return start, meta.learned, loss


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("backbone", "loss"), PROBLEMS, ids=lambda value: getattr(value, "name", value))
def test_two_outer_steps_move_what_the_method_learns_and_nothing_else(
    backbone: str, loss: Loss, method: str
) -> None:
    shape, options = SMALL[backbone]
    network = Network(build_backbone(backbone, shape, OUTPUTS, 0, options), shape, loss)
    start, learned, reached = two_steps(method, network, batch_of(shape, loss))
    assert math.isfinite(reached)
    assert learned.keys() == start.keys() >= set(network.parameters)
    still = {name for name, value in learned.items() if torch.equal(value, start[name])}
    assert still == ({"fc.weight", "fc.bias"} if method == "mrml" else set())
    assert all(bool(value.isfinite().all()) for value in learned.values())
