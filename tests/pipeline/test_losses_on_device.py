"""Your own torch module on arrays, with each loss: exported, proved, adapted by two engines and by PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edge_adapt.edge import Bundle
from edge_adapt.edge.bundle import read_bundle
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.inputs import ArraySpec
from edge_adapt.edge.verify import verify
from edge_adapt.export import export_bundle
from torch import nn

from ..edge.dense import Task, answers, samples
from ..edge.torch_truth import network_input, torch_loss

STEPS, STEP_SIZE = 3, 0.05
WINDOW = ArraySpec((3, 16), mean=(0.5, 0.0, -0.5), std=(2.0, 1.0, 0.5))
TASKS = [
    Task("softmax-cross-entropy", WINDOW, (4,)),
    Task("mean-squared-error", WINDOW, (2,)),
    Task("categorical-policy-gradient", ArraySpec((5,)), (3,)),
    Task("gaussian-policy-gradient", ArraySpec((5,)), (2,)),
]


class Net(nn.Module):
    """Two dense layers; a Gaussian policy learns its log_std, too."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        features = int(np.prod(task.spec.shape))
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(features, 12), nn.ReLU(), nn.Linear(12, task.outputs[-1])
        )
        if task.loss == "gaussian-policy-gradient":
            self.log_std = nn.Parameter(torch.linspace(0, 0.5, task.outputs[-1]))

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(x)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.loss)
def test_an_exported_module_adapts_as_in_pytorch(tmp_path: Path, task: Task) -> None:
    torch.manual_seed(0)
    net, values, given = Net(task), samples(task), answers(task)
    example = torch.zeros(2, *task.spec.shape)
    settings: dict[str, Any] = {"input": task.spec, "loss": task.loss, "step_size": STEP_SIZE, "steps": STEPS}
    export_bundle(net, tmp_path / "bundle", example_input=example, **settings)
    result = verify(read_bundle(tmp_path / "bundle"), ReferenceEngine())
    assert result["passed"]
    assert {check["name"] for check in result["checks"]} >= {f"norm of {name}" for name in net.state_dict()}
    bundle = Bundle.open(tmp_path / "bundle")
    models = [bundle.adapt(values, engine=engine, **given) for engine in ("reference", "onnxruntime")]

    net.double()
    x = network_input(task.spec, values)
    losses = []
    for _ in range(STEPS):
        loss = torch_loss(task.loss, net(x), given, getattr(net, "log_std", None))
        losses.append(loss.item())
        for parameter, gradient in zip(
            net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True
        ):
            parameter.data -= STEP_SIZE * gradient
    loss = torch_loss(task.loss, net(x), given, getattr(net, "log_std", None))
    for model in models:
        np.testing.assert_allclose(model.logits(values), net(x).detach().numpy(), rtol=1e-5, atol=1e-5)
        assert [*model.report["losses"], model.report["loss"]] == pytest.approx(
            [*losses, loss.item()], rel=1e-5
        )
        for name, tensor in model.adapted.tensors.items():
            expected = net.state_dict()[name].numpy()
            np.testing.assert_allclose(tensor.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)
