"""A network that was not meta-trained here: your own torch module, or a forward ONNX file."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from edge_adapt.edge import Bundle, UsageError
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.verify import verify
from edge_adapt.export import ArraySpec, ExportError, InputSpec, export_bundle
from edge_adapt.export.cli import main
from torch import nn
from torch.nn import functional as F

from .cases import stack

SPEC = InputSpec(3, 8, 8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
LAYERS = ("conv", "norm", "head")


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return stack(
            conv=nn.Conv2d(3, 6, 3), norm=nn.GroupNorm(2, 6), relu=nn.ReLU(), pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(), head=nn.Linear(54, 4),
        ).eval()  # fmt: skip


def images(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (count, 8, 8, 3), np.uint8), np.arange(count) % 4


def onnx_file(module: nn.Module, path, shape=(3, 8, 8)):
    """What the older TorchScript exporter writes: another graph than the one that capture sees."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(1, *shape),), buffer, dynamo=False, opset_version=17,
                          dynamic_axes={"x": {0: "batch"}}, input_names=["x"])  # fmt: skip
    path.write_bytes(buffer.getvalue())
    return path


def adapted_by_torch(module: nn.Module, x: torch.Tensor, y: torch.Tensor, alpha: np.ndarray) -> np.ndarray:
    """Logits after plain gradient steps with a step size per layer and step, in float64."""
    module = module.double()
    x = x.double()
    for row in alpha:
        loss = F.cross_entropy(module(x), y)
        grads = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for (name, parameter), grad in zip(module.named_parameters(), grads, strict=True):
                parameter -= float(row[LAYERS.index(name.partition(".")[0])]) * grad
    return module(x).detach().numpy()


def test_a_module_of_ones_own_adapts_as_torch_does(tmp_path):
    alpha = np.array([[0.1, 0.05, 0.2], [0.0, 0.1, 0.1]], np.float32)
    example = torch.zeros(1, 3, 8, 8)
    export_bundle(network(), tmp_path / "b", example_input=example, step_size=alpha, input=SPEC, samples=6)
    bundle = Bundle.open(tmp_path / "b")
    assert verify(bundle.files, ReferenceEngine())["passed"]
    x, y = images()
    model = bundle.adapt(x, y, plan=bundle.plan(samples=6))
    expected = adapted_by_torch(network(), torch.from_numpy(SPEC.preprocess(x)), torch.from_numpy(y), alpha)
    np.testing.assert_allclose(model.logits(x), expected, rtol=1e-4, atol=1e-4)


def test_one_learning_rate_and_a_layer_mask(tmp_path):
    export_bundle(
        network(), tmp_path / "b", example_input=np.zeros((2, 3, 8, 8), np.float32), step_size=0.3, steps=2,
        layers=["h*"],
    )  # fmt: skip
    bundle = Bundle.open(tmp_path / "b")
    np.testing.assert_allclose(bundle.files.weights.copy("alpha"), [[0, 0, 0.3]] * 2, rtol=1e-6)
    assert bundle.plan(samples=3).layers == (("head",),) * 2
    assert bundle.files.manifest.input == ArraySpec((3, 8, 8))
    assert bundle.files.manifest.name == "Sequential"


def test_benefits_are_the_first_order_decrease_on_the_calibration_set(tmp_path):
    x, y = images()
    rate = 1e-3
    export_bundle(
        network(), tmp_path / "b", example_input=np.zeros((2, 3, 8, 8), np.float32), step_size=rate, steps=1,
        input=SPEC, calibration=(x, y),
    )  # fmt: skip
    module, inputs, labels = (
        network().double(),
        torch.from_numpy(SPEC.preprocess(x)).double(),
        torch.from_numpy(y),
    )
    for layer in Bundle.open(tmp_path / "b").files.manifest.layers:
        part = module.get_submodule(layer.name)
        before = F.cross_entropy(module(inputs), labels)
        grads = torch.autograd.grad(before, list(part.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(part.parameters(), grads, strict=True):
                parameter -= rate * grad
        decrease = (before - F.cross_entropy(module(inputs), labels)).item()
        with torch.no_grad():
            for parameter, grad in zip(part.parameters(), grads, strict=True):
                parameter += rate * grad
        assert layer.benefit is not None
        assert layer.benefit[0] == pytest.approx(decrease, rel=0.05)


def test_an_onnx_file_gives_the_bundle_of_its_module(tmp_path):
    file = onnx_file(network(), tmp_path / "model.onnx")
    assert main(["--from-onnx", str(file), "-o", str(tmp_path / "b"), "--step-size", "0.1", "--steps", "2",
                 "--samples", "6", "--mean", "0.4,0.5,0.6", "--std", "0.2,0.3,0.4"]) == 0  # fmt: skip
    export_bundle(network(), tmp_path / "m", example_input=torch.zeros(1, 3, 8, 8), step_size=0.1, steps=2,
                  samples=6, input=SPEC)  # fmt: skip
    x, y = images()
    logits = []
    for name in ("b", "m"):
        bundle = Bundle.open(tmp_path / name)
        assert verify(bundle.files, ReferenceEngine())["passed"]
        logits.append(bundle.adapt(x, y).logits(x))
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs example_input"),
        ({"example_input": np.zeros((1, 3, 8, 8), np.int64)}, "expected real numbers"),
        ({"example_input": np.zeros((1, 3, 8, 8)), "layers": ["hat"]}, "'hat' fits no layer; there are: conv, norm"),
        ({"example_input": np.zeros((1, 3, 8, 8)), "step_size": -1.0}, "step_size: expected positive"),
        ({"example_input": np.zeros((1, 3, 8, 8)), "step_size": np.ones((2, 2))}, r"got shape \(2, 2\)"),
        ({"example_input": np.zeros((1, 3, 8, 8)), "steps": 0}, "steps: expected a positive integer"),
        ({"example_input": np.zeros((1, 3, 9, 8)), "input": SPEC}, "its shape is"),
        ({"example_input": np.zeros((1, 3, 8, 8)), "batch_norm": "keep"}, "batch_norm: expected one of"),
        ({"example_input": np.zeros((1, 3, 8, 8)), "calibration": (np.zeros((2, 3, 8, 8)), np.array([0, 9]))},
         "one class index below 4"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_line_and_nothing_is_written(options, message, tmp_path):
    with pytest.raises(ExportError, match=message) as caught:
        export_bundle(network(), tmp_path / "b", **options)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_options_of_plain_modules_do_not_go_with_a_run(tmp_path):
    with pytest.raises(UsageError, match="step_size, layers: only for a torch module"):
        export_bundle(tmp_path / "run", tmp_path / "b", step_size=0.2, layers=["head"])
