"""A network of all activations in a planned arena: masks, kept outputs and memory reused in place."""

from __future__ import annotations

import numpy as np
import torch
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.verify import verify
from edge_adapt.export import export_bundle
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = (
    nn.ReLU6(), nn.LeakyReLU(0.1), nn.PReLU(6), nn.ELU(0.5), nn.SiLU(), nn.Hardswish(), nn.GELU(),
    nn.GELU("tanh"), nn.Tanh(), nn.Sigmoid(), nn.Hardsigmoid(), nn.PReLU(), nn.Softmax(-1), nn.ReLU(),
)  # fmt: skip


def network() -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(2, 6, 1)]
    for place, activation in enumerate(ACTIVATIONS):
        parts += [activation, nn.Conv2d(6, 6, 1 if place % 2 else 3, padding=1 - place % 2)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(6 * 20, 3))


def adapted_by_torch(
    module: nn.Module, x: np.ndarray, y: np.ndarray, step_size: float, steps: int
) -> np.ndarray:
    module = module.double()
    images = torch.from_numpy(x).double()
    for _ in range(steps):
        loss = F.cross_entropy(module(images), torch.from_numpy(y))
        grads = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for param, grad in zip(module.parameters(), grads, strict=True):
                param -= step_size * grad
    return module(images).detach().numpy()


def test_all_activations_in_one_network_adapt_as_in_torch(tmp_path):
    torch.manual_seed(8)
    module = network()
    path = export_bundle(
        module, tmp_path / "b", example_input=torch.zeros(1, 2, 4, 5), step_size=0.05, steps=3
    )
    bundle = Bundle.open(path)
    report = verify(bundle.files, ReferenceEngine())
    assert report["passed"], [check for check in report["checks"] if not check["passed"]]
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(6, 2, 4, 5)).astype(np.float32), np.arange(6) % 3
    logits = bundle.adapt(x, y, plan=bundle.plan(samples=6)).logits(x)
    expected = adapted_by_torch(module, x, y, 0.05, 3)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
