"""Losses: the program against torch and closed forms, stock onnxruntime, finite differences, whole bundles."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from edge_adapt.edge.bundle import read_bundle
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.losses import LOSSES as EDGE_LOSSES
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.edge.verify import verify
from edge_adapt.export import ArraySpec, ExportError, export_bundle
from edge_adapt.export.adaptation import adaptation
from edge_adapt.export.autodiff import differentiate
from edge_adapt.export.losses import LOSSES, loss_named
from edge_adapt.export.onnx_graph import build_graph
from edge_adapt.export.source import Source
from torch import nn
from torch.nn import functional as F

from .cases import stack
from .ort import run_model

CE, MSE = "softmax-cross-entropy", "mean-squared-error"
CATEGORICAL, GAUSSIAN = "categorical-policy-gradient", "gaussian-policy-gradient"
WEIGHT = np.array([0.1, 0.3, 0.2, 0.15])
N, T, A = len(WEIGHT), 5, 3


class Policy(nn.Module):
    """Means or logits, and a log standard deviation that only the loss reads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.head = nn.Linear(6, A)
        self.log_std = nn.Parameter(torch.tensor([-0.5, 0.2, 0.1]))

    def forward(self, x):
        return self.head(torch.relu(self.body(x)))


class Maps(nn.Module):
    """An image in, an image out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x):
        return torch.relu(self.conv(x))


@cache
def policy(name: str, shape: tuple[int, ...]) -> Source:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        module = Policy() if name == GAUSSIAN else nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, A))
    layers = ("body", "head", "log_std") if name == GAUSSIAN else ("0", "2")
    alpha = np.full((2, len(layers)), 0.1, np.float32)
    return Source("policy", module, ArraySpec(shape), layers, alpha, loss=name)


def answers(name: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """`shape` of one sample's output."""
    rng = np.random.default_rng(4)
    if name == MSE:
        return {"targets": rng.normal(size=(N, *shape))}
    if name == CE:
        return {"labels": rng.integers(0, shape[-1], N)}
    actions = rng.integers(0, A, (N, *shape[:-1])) if name == CATEGORICAL else rng.normal(size=(N, *shape))
    return {"actions": actions, "advantages": rng.normal(size=(N, *shape[:-1]))}


def each_loss(name: str, outputs: torch.Tensor, given: dict, log_std: torch.Tensor | None) -> torch.Tensor:
    """(N,), by the formulas of the contract, written out."""
    if name == MSE:
        return ((outputs - given["targets"]) ** 2).flatten(1).mean(1)
    if name == CE:
        return F.cross_entropy(outputs, given["labels"], reduction="none")
    if name == CATEGORICAL:
        log_p = outputs.log_softmax(-1).gather(-1, given["actions"][..., None])[..., 0]
    else:
        variance = (2 * log_std).exp()
        log_p = -((given["actions"] - outputs) ** 2) / (2 * variance) - log_std - 0.5 * math.log(2 * math.pi)
        log_p = log_p.sum(-1)
    surprise = -given["advantages"] * log_p
    return surprise if surprise.dim() == 1 else surprise.mean(1)


def truth(source: Source, images: np.ndarray, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    module = source.module.double()
    outputs = module(torch.from_numpy(images))
    tensors = {part: torch.from_numpy(value) for part, value in given.items()}
    each = each_loss(source.loss, outputs, tensors, getattr(module, "log_std", None))
    loss = (each * torch.from_numpy(WEIGHT)).sum()
    params = dict(module.named_parameters())
    grads = torch.autograd.grad(loss, list(params.values()), retain_graph=True)
    (own,) = torch.autograd.grad(each.sum(), outputs)
    found = {f"grad::{name}": grad.numpy() for name, grad in zip(params, grads, strict=True)}
    program = adaptation(source)
    seed = program.sections["loss"][0].outputs[1]
    return {**found, "loss": loss.detach().numpy(), seed: own.numpy()}


def values(source: Source, images: np.ndarray, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    params = {name: value.detach().numpy() for name, value in source.module.double().named_parameters()}
    rest = {"class_mask": np.ones(A)} if source.loss == CE else {}
    return {**params, **given, "images": images, "sample_weight": WEIGHT, **rest}


PROBLEMS = {
    "cross-entropy": (CE, (4,), (A,)),
    "squared-error": (MSE, (4,), (A,)),
    "squared-error-in-time": (MSE, (T, 4), (T, A)),
    "categorical": (CATEGORICAL, (4,), (A,)),
    "categorical-in-time": (CATEGORICAL, (T, 4), (T, A)),
    "gaussian": (GAUSSIAN, (4,), (A,)),
    "gaussian-in-time": (GAUSSIAN, (T, 4), (T, A)),
}


def problem(key: str) -> tuple[Source, np.ndarray, dict[str, np.ndarray]]:
    name, shape, output = PROBLEMS[key]
    images = np.random.default_rng(1).normal(size=(N, *shape))
    return policy(name, shape), images, answers(name, output)


@pytest.mark.parametrize("key", PROBLEMS)
def test_loss_and_gradients_are_those_of_autograd(key):
    source, images, given = problem(key)
    expected = truth(source, images, given)
    program = adaptation(source)
    assert {name for layer in program.layers for name in layer.grads} < set(expected)
    found = interpret(program, values(source, images, given), list(expected), np.float64)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("key", PROBLEMS)
def test_stock_onnxruntime_computes_the_same(key):
    source, images, given = problem(key)
    expected = truth(source, images, given)
    model = build_graph(adaptation(source), {}, {name: name for name in expected}, adjustable=True)
    found = run_model(model, values(source, images, given))
    for name, value in expected.items():
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(found[name], value, atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize(
    ("key", "param"), [("gaussian-in-time", "log_std"), ("categorical-in-time", "2.bias")]
)
def test_gradients_are_finite_differences_of_the_loss(key, param):
    source, images, given = problem(key)
    program, known = adaptation(source), values(source, images, given)
    gradient = interpret(program, known, [f"grad::{param}"], np.float64)[f"grad::{param}"]
    for place in range(A):
        step = np.eye(A)[place] * 1e-5
        ahead, behind = (
            interpret(program, {**known, param: known[param] + sign * step}, ["loss"], np.float64)["loss"]
            for sign in (1, -1)
        )
        assert (ahead - behind) / 2e-5 == pytest.approx(gradient[place], abs=1e-8)


@pytest.mark.parametrize("mask", [[1, 1, 1, 1], [1, 0, 1, 1]], ids=["all", "three-of-four"])
def test_label_smoothing_is_torchs_over_the_classes_in_use(mask):
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(5, 4)).double()
    source = Source(
        "s", module, ArraySpec((5,)), ("0",), np.ones((1, 1), np.float32), loss=CE, label_smoothing=0.2
    )
    images, labels = np.random.default_rng(6).normal(size=(N, 5)), np.array([0, 2, 3, 2])
    used = np.flatnonzero(mask)
    outputs = module(torch.from_numpy(images))[:, used]
    target = torch.from_numpy(np.searchsorted(used, labels))
    each = F.cross_entropy(outputs, target, reduction="none", label_smoothing=0.2)
    loss = (each * torch.from_numpy(WEIGHT)).sum()
    grads = torch.autograd.grad(loss, list(module.parameters()))
    known = {name: value.detach().numpy() for name, value in module.named_parameters()}
    known |= {
        "images": images,
        "labels": labels,
        "sample_weight": WEIGHT,
        "class_mask": np.array(mask, float),
    }
    names, program = ["loss", "grad::0.weight", "grad::0.bias"], adaptation(source)
    by_ort = run_model(build_graph(program, {}, {name: name for name in names}, adjustable=True), known)
    found = interpret(program, known, names, np.float64)
    for name, value in zip(names, (loss, *grads), strict=True):
        np.testing.assert_allclose(found[name], value.detach().numpy(), atol=1e-12, err_msg=name)
        np.testing.assert_allclose(by_ort[name], value.detach().numpy(), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", LOSSES)
def test_a_bundle_with_every_loss_verifies_on_the_device(name, tmp_path):
    torch.manual_seed(4)
    module = Policy() if name == GAUSSIAN else nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, A))
    bundle = export_bundle(module, tmp_path / "b", example_input=torch.zeros(2, 4), loss=name, steps=2)
    files = read_bundle(bundle)
    assert (files.manifest.loss, files.manifest.classes) == (name, A)
    layers = {layer.name: layer.kind for layer in files.manifest.layers}
    report = verify(files, ReferenceEngine())
    assert report["passed"], report["checks"]
    assert layers.get("log_std") == ("log-std" if name == GAUSSIAN else None)


def test_a_regression_of_whole_maps_verifies_on_the_device(tmp_path):
    torch.manual_seed(5)
    bundle = export_bundle(Maps(), tmp_path / "b", example_input=torch.zeros(1, 2, 6, 5), loss=MSE)
    assert verify(read_bundle(bundle), ReferenceEngine())["passed"]


def test_a_log_std_need_not_be_the_last_layer():
    source = policy(GAUSSIAN, (4,))
    alpha = np.array([[0.3, 0.1, 0.2]], np.float32)
    moved = replace(source, layer_names=("log_std", "body", "head"), alpha=alpha)
    indices = {layer.name: layer.index for layer in adaptation(moved).layers}
    assert indices == {"log_std": 0, "body": 1, "head": 2}


def test_export_and_device_know_the_same_losses():
    assert set(LOSSES) == set(EDGE_LOSSES)
    for name, loss in LOSSES.items():
        program = differentiate(policy(name, (4,)).captured.program, {}, 1, loss)
        assert EDGE_LOSSES[name].operation == loss.kind
        EDGE_LOSSES[name].check(program, "test")


def test_losses_that_do_not_fit_are_refused():
    with pytest.raises(ExportError, match=r"loss: expected one of softmax-cross-entropy, .* got 'hinge'"):
        loss_named("hinge")
    with pytest.raises(
        ExportError, match="label_smoothing: only for softmax-cross-entropy, but the loss is mean"
    ):
        loss_named(MSE, 0.1)
    with pytest.raises(ExportError, match=r"shape \(5, 3\); expected logits \(N, classes\)"):
        adaptation(replace(policy(MSE, (T, 4)), network=policy(MSE, (T, 4)).captured, loss=CE))
    without = nn.Sequential(nn.Linear(4, A))
    with pytest.raises(
        ExportError, match=r"needs one parameter log_std of shape \(3,\) in a torch module, got none"
    ):
        adaptation(Source("p", without, ArraySpec((4,)), ("0",), np.ones((1, 1), np.float32), loss=GAUSSIAN))


def test_a_module_that_ends_in_probabilities_is_refused(tmp_path):
    module = stack(head=nn.Linear(4, A), out=nn.Softmax(-1))
    with pytest.raises(ExportError, match=r"ends with the Softmax 'out', but loss .* return the logits"):
        export_bundle(module, tmp_path / "b", example_input=torch.zeros(1, 4))
    assert not list(tmp_path.iterdir())
    export_bundle(module, tmp_path / "b", example_input=torch.zeros(1, 4), loss=MSE)
