"""Every loss against PyTorch in float64: its value, and what adapting with it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge import Bundle
from edge_adapt.edge.losses import LOSSES
from edge_adapt.edge.plan import search_plan

from .dense import STEPS, TASKS, Task, answers, dense_weights, samples, write_dense_bundle

torch = pytest.importorskip("torch")
from .torch_truth import Arrays, network_input, torch_loss  # noqa: E402 (needs torch)


def torch_outputs(task: Task, tensors: Mapping[str, Any], x: Any) -> Any:
    hidden = (x.flatten(1) @ tensors["fc1.weight"].T + tensors["fc1.bias"]).relu()
    return (hidden @ tensors["fc2.weight"].T + tensors["fc2.bias"]).reshape(-1, *task.outputs)


def torch_adapted(task: Task, weights: Arrays, x: Any, given: Arrays) -> tuple[dict[str, Any], list[float]]:
    """Plain SGD; returns the parameters after the last step and the loss before every step and after them."""
    tensors = {n: torch.from_numpy(v).double().requires_grad_() for n, v in weights.items() if n != "alpha"}
    losses = []
    for step in range(STEPS + 1):
        loss = torch_loss(task.loss, torch_outputs(task, tensors, x), given, tensors.get("policy.log_std"))
        losses.append(loss.item())
        if step < STEPS:
            gradients = torch.autograd.grad(loss, list(tensors.values()))
            alpha = float(weights["alpha"][0, 0])
            tensors = {
                name: (tensor - alpha * gradient).detach().requires_grad_()
                for (name, tensor), gradient in zip(tensors.items(), gradients, strict=True)
            }
    return tensors, losses


@pytest.mark.parametrize("name", TASKS)
def test_the_reported_loss_is_that_of_pytorch(name: str) -> None:
    task, loss = TASKS[name], LOSSES[TASKS[name].loss]
    outputs = np.random.default_rng(3).normal(size=(10, *task.outputs))
    log_std = np.linspace(-1, 0.5, task.outputs[-1]).astype(np.float32)
    given = answers(task)
    expected = torch_loss(task.loss, torch.from_numpy(outputs), given, torch.from_numpy(log_std).double())
    assert loss.mean(outputs, {**given, "log_std": log_std}) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("micro_batch", [1, 3, 10])
@pytest.mark.parametrize("name", TASKS)
def test_adapting_equals_gradient_descent_in_pytorch(tmp_path: Path, name: str, micro_batch: int) -> None:
    task, values = TASKS[name], samples(TASKS[name])
    given, weights = answers(task), dense_weights(task)
    bundle = Bundle.open(write_dense_bundle(tmp_path / "bundle", task))
    plan = search_plan(bundle.files.program, weights["alpha"], 10, STEPS, micro_batch=micro_batch)
    model = bundle.adapt(values, plan=plan, **given)
    x = network_input(task.spec, values)
    expected, losses = torch_adapted(task, weights, x, given)
    assert set(model.adapted.tensors) == set(expected)
    for param, tensor in expected.items():
        np.testing.assert_allclose(model.adapted.tensors[param], tensor.detach().numpy(), rtol=0, atol=2e-6)
    assert [*model.report["losses"], model.report["loss"]] == pytest.approx(losses, rel=1e-6, abs=2e-6)
    outputs = torch_outputs(task, expected, x).detach().numpy()
    np.testing.assert_allclose(model.logits(values), outputs, rtol=0, atol=5e-6)
