"""Squared error, policy gradients and label smoothing: against torch, over random shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, run

torch = pytest.importorskip("torch")
F = torch.nn.functional

SIZES = st.lists(st.integers(1, 6), min_size=2, max_size=3)


def both(kind: str, inputs: list[Array], **attrs: Any) -> tuple[float, Array]:
    """Loss, and gradient of the first input."""
    outputs = [garbage((1,)), garbage(inputs[0].shape)]
    run(kind, inputs, outputs, **attrs)
    return float(outputs[0][0]), outputs[1]


def check(kind: str, inputs: list[Array], each: Any, outputs: Any) -> None:
    """Compare with torch, where `each` (N,) are the losses of `outputs`; sample weights are the last input."""
    (gradient,) = torch.autograd.grad(each.sum(), outputs, retain_graph=True)
    loss, found = both(kind, inputs)
    assert loss == pytest.approx(
        float((each * torch.tensor(inputs[-1])).sum().detach()), rel=1e-10, abs=1e-12
    )
    np.testing.assert_allclose(found, gradient.numpy(), rtol=1e-10, atol=1e-14)


def over_time(values: Any) -> Any:
    return values if values.dim() == 1 else values.flatten(1).mean(1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(0, 1000))
def test_squared_error_is_the_mean_over_a_samples_elements(shape: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs, targets, weight = rng.normal(size=shape), rng.normal(size=shape), rng.uniform(size=shape[0])
    tensor = torch.tensor(outputs, requires_grad=True)
    each = F.mse_loss(tensor, torch.tensor(targets), reduction="none").flatten(1).mean(1)
    check("MeanSquaredError", [outputs, targets, weight], each, tensor)


def test_squared_error_of_many_chunks() -> None:
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(2, 3, 50, 40)), rng.normal(size=(2, 3, 50, 40))
    loss, gradient = both("MeanSquaredError", [outputs, targets, np.array([0.5, 0.5])])
    assert loss == pytest.approx(np.square(outputs - targets).mean(), rel=1e-12)
    np.testing.assert_allclose(gradient, (outputs - targets) / 3000, rtol=1e-12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SIZES, st.integers(0, 1000))
def test_a_categorical_policy_is_torchs(shape: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, weight = 3 * rng.normal(size=shape), rng.uniform(size=shape[0])
    actions, advantages = rng.integers(0, shape[-1], shape[:-1]), rng.normal(size=shape[:-1])
    tensor = torch.tensor(logits, requires_grad=True)
    policy = torch.distributions.Categorical(logits=tensor)
    each = over_time(-policy.log_prob(torch.tensor(actions)) * torch.tensor(advantages))
    check("CategoricalPolicyGradient", [logits, actions, advantages, weight], each, tensor)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SIZES, st.integers(0, 1000))
def test_a_gaussian_policy_is_torchs(shape: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    mean, actions, log_std = rng.normal(size=shape), rng.normal(size=shape), rng.normal(size=shape[-1])
    advantages, weight = rng.normal(size=shape[:-1]), rng.uniform(size=shape[0])
    tensors = [torch.tensor(array, requires_grad=True) for array in (mean, log_std)]
    policy = torch.distributions.Normal(tensors[0], tensors[1].exp().expand(shape))
    likelihood = policy.log_prob(torch.tensor(actions)).sum(-1)
    each = over_time(-likelihood * torch.tensor(advantages))
    inputs = [mean, log_std, actions, advantages, weight]
    check("GaussianPolicyGradient", inputs, each, tensors[0])
    (expected,) = torch.autograd.grad((each * torch.tensor(weight)).sum(), tensors[1])
    found = run("GaussianLogStdGrad", inputs, [np.ones(shape[-1])])
    np.testing.assert_allclose(found, 1 + expected.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["MeanSquaredError", "CategoricalPolicyGradient", "GaussianPolicyGradient"])
def test_loss_and_gradient_may_each_be_dropped(kind: str) -> None:
    rng = np.random.default_rng(3)
    values, weight, advantages = rng.normal(size=(4, 2, 3)), rng.uniform(size=4), rng.normal(size=(4, 2))
    given = {
        "MeanSquaredError": [values, rng.normal(size=(4, 2, 3))],
        "CategoricalPolicyGradient": [values, rng.integers(0, 3, (4, 2)), advantages],
        "GaussianPolicyGradient": [values, rng.normal(size=3), rng.normal(size=(4, 2, 3)), advantages],
    }[kind]
    inputs = [*given, weight]
    loss, gradient = both(kind, inputs)
    only_loss, only_gradient = garbage((1,)), garbage(values.shape)
    run(kind, inputs, [only_loss, None])
    run(kind, inputs, [None, only_gradient])
    assert float(only_loss[0]) == loss
    np.testing.assert_array_equal(only_gradient, gradient)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(2, 7), st.floats(0, 0.9), st.integers(0, 1000))
def test_label_smoothing_is_torchs_over_the_classes_in_use(
    samples: int, classes: int, smoothing: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, weight = 3 * rng.normal(size=(samples, classes)), rng.uniform(size=samples)
    used = np.sort(rng.permutation(classes)[: rng.integers(1, classes + 1)])
    mask = np.zeros(classes)
    mask[used] = 1
    labels = rng.choice(used, samples)
    tensor = torch.tensor(logits, requires_grad=True)
    target = torch.tensor(np.searchsorted(used, labels))
    each = F.cross_entropy(tensor[:, used], target, reduction="none", label_smoothing=smoothing)
    (expected,) = torch.autograd.grad(each.sum(), tensor)
    loss, gradient = both("SoftmaxCrossEntropy", [logits, labels, weight, mask], label_smoothing=smoothing)
    assert loss == pytest.approx(float(each.detach() @ torch.tensor(weight)), rel=1e-10, abs=1e-12)
    np.testing.assert_allclose(gradient, expected.numpy(), atol=1e-12)
