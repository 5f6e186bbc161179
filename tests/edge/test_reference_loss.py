"""Softmax cross-entropy: weighted loss, unweighted per-sample gradient, classes that are not in use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .kernel_cases import Array, garbage, relative_error, run

torch = pytest.importorskip("torch")


def loss_and_gradient(logits: Array, labels: Array, weights: Array, mask: Array) -> tuple[float, Array]:
    outputs = [garbage((1,), logits.dtype), garbage(logits.shape, logits.dtype)]
    run("SoftmaxCrossEntropy", [logits, labels, weights, mask], outputs)
    return float(outputs[0][0]), outputs[1]


def problem(dtype: Any = np.float64, samples: int = 6) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(0)
    logits = (3 * rng.normal(size=(samples, 7))).astype(dtype)
    return logits, rng.integers(0, 7, samples), np.full(samples, 1 / samples, dtype), np.ones(7, dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_loss_is_the_mean_and_gradient_each_samples_own(dtype: type, tolerance: float) -> None:
    logits, labels, weights, mask = problem(dtype)
    loss, gradient = loss_and_gradient(logits, labels, weights, mask)
    tensor = torch.tensor(logits.astype(np.float64), requires_grad=True)
    each = torch.nn.functional.cross_entropy(tensor, torch.tensor(labels), reduction="none")
    each.sum().backward()
    assert loss == pytest.approx(float(each.detach().mean()), rel=tolerance)
    assert relative_error(gradient, tensor.grad.numpy()) < tolerance


def test_unused_classes_take_no_part() -> None:
    logits, labels, weights, mask = problem()
    mask[[2, 5]] = 0
    labels = np.array([0, 1, 3, 4, 6, 0])
    used = np.flatnonzero(mask)
    loss, gradient = loss_and_gradient(logits, labels, weights, mask)
    wild = logits.copy()
    wild[:, [2, 5]] = 1e30
    again, gradient_again = loss_and_gradient(wild, labels, weights, mask)
    alone, gradient_alone = loss_and_gradient(
        np.ascontiguousarray(logits[:, used]), np.searchsorted(used, labels), weights, np.ones(5)
    )
    assert loss == again == pytest.approx(alone, rel=1e-14)
    np.testing.assert_array_equal(gradient, gradient_again)
    np.testing.assert_array_equal(gradient[:, [2, 5]], 0)
    np.testing.assert_allclose(gradient[:, used], gradient_alone, rtol=1e-14)


def test_weights_scale_the_loss_but_not_the_gradient() -> None:
    logits, labels, weights, mask = problem()
    loss, gradient = loss_and_gradient(logits, labels, weights, mask)
    tripled, same = loss_and_gradient(logits, labels, 3 * weights, mask)
    assert tripled == pytest.approx(3 * loss, rel=1e-14)
    np.testing.assert_array_equal(same, gradient)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    logits, labels, weights, mask = problem()
    direction = np.random.default_rng(1).normal(size=logits.shape)
    ahead, behind = (
        loss_and_gradient(logits + s * 1e-5 * direction, labels, weights, mask)[0] for s in (1, -1)
    )
    slope = np.vdot(weights[:, None] * loss_and_gradient(logits, labels, weights, mask)[1], direction)
    assert (ahead - behind) / 2e-5 == pytest.approx(slope, rel=1e-8)


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
    loss, gradient = loss_and_gradient(
        logits, np.array([0, 0]), np.ones(2, np.float32), np.ones(2, np.float32)
    )
    assert loss == pytest.approx(1e4)
    np.testing.assert_allclose(gradient, [[0, 0], [-1, 1]], atol=1e-30)
