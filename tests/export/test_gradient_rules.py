"""Every gradient rule against torch autograd in float64, through the NumPy meaning of the operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export.source import AttentionSettings
from torch import nn

from .cases import CASES, Example, built, case, example, stack
from .truth import Truth, truth

TOLERANCE = 1e-8


def check(example: Example, expected: Truth, **inputs: np.ndarray) -> None:
    names = example.gradients
    found = interpret(example.program, example.values(**inputs), ["loss", *names], np.float64)
    assert set(names) == set(expected.grads)
    np.testing.assert_allclose(found["loss"], expected.loss, atol=TOLERANCE)
    for name in names:
        np.testing.assert_allclose(found[name], expected.grads[name], atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("name", CASES)
def test_parameter_gradients_are_those_of_autograd(name):
    plain = case(name, attended=False)
    check(plain, truth(plain.module, plain.images, plain.labels))


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_every_layers_output_are_per_sample_and_unweighted(name):
    plain = case(name, attended=False)
    expected = truth(plain.module, plain.images, plain.labels).output_grads
    position = {"ConvWeightGrad": 1, "FcWeightGrad": 1, "ScaleGrad": 0}
    ops = [op for op in plain.program.ops(("backward",)) if op.kind in position]
    gradients = {op.layer: op.inputs[position[op.kind]] for op in ops}
    assert set(gradients) == set(expected)
    found = interpret(plain.program, plain.values(), list(gradients.values()), np.float64)
    for layer, gradient in gradients.items():
        np.testing.assert_allclose(found[gradient], expected[layer], atol=TOLERANCE, err_msg=layer)


@pytest.mark.parametrize("name", CASES)
def test_attention_scales_every_samples_own_gradient(name):
    attended = case(name, attended=True)
    expected = truth(attended.module, attended.images, attended.labels, attention=attended.attention)
    check(attended, expected)
    found = interpret(attended.program, attended.values(), list(expected.gammas), np.float64)
    for key, gamma in expected.gammas.items():
        np.testing.assert_allclose(found[key], gamma, atol=TOLERANCE, err_msg=key)


@pytest.mark.parametrize(
    "settings",
    [
        AttentionSettings(0.0, 0.0),
        AttentionSettings(0.5, 0.4),
        AttentionSettings(0.99, 0.0),
        AttentionSettings(0.3, 0.0, cap=2),
        AttentionSettings(0.0, 0.0, cap=3),
        AttentionSettings(0.3, 0.2, None, "raw"),
    ],
    ids=str,
)
def test_attention_settings_reach_the_program(settings):
    module = built("conv-norm")
    attended = example(module, (2, 5, 5), attended=True, settings=settings, hidden=3)
    check(
        attended,
        truth(module, attended.images, attended.labels, attention=attended.attention, settings=settings),
    )


def test_masked_classes_and_sample_weights():
    plain = case("group-norm", attended=False)
    labels, mask, weight = np.array([0, 2, 2, 0]), np.array([1.0, 0, 1]), np.array([0.1, 0.3, 0.05, 0.2])
    expected = truth(plain.module, plain.images, labels, sample_weight=weight, class_mask=mask)
    check(plain, expected, labels=labels, class_mask=mask, sample_weight=weight)
    assert np.all(expected.grads["grad::head.bias"][1] == 0)


def test_ties_in_a_window_go_to_the_first_maximum():
    torch.manual_seed(1)
    module = stack(
        a=nn.Conv2d(1, 2, 1), pool=nn.MaxPool2d(3, 2, 1), flatten=nn.Flatten(), head=nn.Linear(18, 3)
    )
    module.a.weight.data = torch.ones_like(module.a.weight)
    tied = example(module, (1, 5, 6), attended=False)
    images = np.round(tied.images)
    assert len(np.unique(images)) < 8
    check(tied, truth(module, images, tied.labels), images=images)


def test_gradients_are_finite_differences_of_the_loss():
    plain = case("max-pool-overlapping", attended=False)
    values = plain.values()
    gradient = interpret(plain.program, values, ["grad::stem.weight"], np.float64)["grad::stem.weight"]
    for index in [(0, 0, 0, 0), (3, 1, 2, 1), (5, 0, 1, 2)]:
        losses = []
        for step in (1e-6, -1e-6):
            moved = values["stem.weight"].copy()
            moved[index] += step
            losses.append(
                interpret(plain.program, {**values, "stem.weight": moved}, ["loss"], np.float64)["loss"]
            )
        assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(gradient[index], abs=1e-7)


def test_the_update_subtracts_the_layers_step_size_times_the_gradient():
    plain = case("conv-padded", attended=False)
    alpha = np.arange(6.0).reshape(2, 3)
    names = ["updated::middle.weight", "updated::middle.bias", "grad::middle.weight", "grad::middle.bias"]
    found = interpret(plain.program, plain.values(alpha=alpha), names, np.float64, step=1)
    for part in ("weight", "bias"):
        before = getattr(plain.module.middle, part).detach().numpy()
        expected = before - 4.0 * found[f"grad::middle.{part}"]
        np.testing.assert_allclose(found[f"updated::middle.{part}"], expected, atol=1e-12)
