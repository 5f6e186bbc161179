"""ONNX Runtime training's artifacts against torch: operation by operation, loss by loss, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from edge_adapt.edge.errors import UsageError
from edge_adapt.edge.inputs import ArraySpec
from edge_adapt.edge.program import Program
from edge_adapt.export import ExportError
from edge_adapt.export.adaptation import adaptation
from edge_adapt.export.capture import capture
from edge_adapt.export.cli import main
from edge_adapt.export.ort_training import PYTHON_VARIABLE, generate, write_artifacts
from edge_adapt.export.ort_training.artifacts import write_request
from edge_adapt.export.ort_training.forms import FORMS
from edge_adapt.export.ort_training.forward import PLAIN, forward_model
from edge_adapt.export.source import Source
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from .cases import case
from .cases_ort_training import CASES, LOSSES, PLAIN_LOSS, LossCase

SCRIPT = Path(__file__).with_name("ort_training_script.py")
SAMPLES = 4
RUNS = {**{name: (case, PLAIN_LOSS) for name, case in CASES.items()}, **LOSSES}


@dataclass(frozen=True)
class Request:
    """A module in float64, its program, and the inputs of one batch."""

    module: nn.Module
    program: Program
    values: Mapping[str, np.ndarray]
    inputs: Mapping[str, np.ndarray]
    loss: LossCase


@cache
def request(name: str) -> Request:
    chosen, loss = RUNS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = chosen.make().double()
    network = capture(module, chosen.shape)
    names = (*(layer.name for layer in network.program.layers), *loss.learned)
    source = Source(
        *("case", module, ArraySpec(chosen.shape), names, np.ones((1, len(names)), np.float32)),
        network=network,
        loss=loss.name,
        label_smoothing=loss.label_smoothing,
    )
    program = adaptation(source)
    rng = np.random.default_rng(0)
    inputs = {"images": rng.normal(size=(SAMPLES, *chosen.shape)), "class_mask": np.array([1, 1, 0])}
    for part in set(loss.inputs) - {"class_mask"}:
        tensor = program.tensors[program.inputs[part]]
        shape = tensor.concrete(SAMPLES)
        inputs[part] = rng.integers(0, 2, shape) if tensor.dtype == "int64" else rng.normal(size=shape)
    return Request(module, program, source.captured.values, inputs, loss)


def feeds(made: Request) -> dict[str, np.ndarray]:
    """The inputs in the program's types."""
    parts = ("images", *made.loss.inputs)
    return {part: made.inputs[part].astype(made.program.tensors[part].dtype) for part in parts}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, ort_training: Path) -> Path:
    """All requests, generated and run by one process in the other environment."""
    home = tmp_path_factory.mktemp("requests")
    for name in RUNS:
        made, folder = request(name), home / name
        folder.mkdir()
        layers = [layer.name for layer in made.program.layers]
        write_request(made.program, made.values, frozenset(layers), folder)
        scale = {generate.STEP_SCALE: np.ones(len(layers), np.float32)}
        np.savez(folder / "task.npz", **feeds(made), **scale)
    command = [str(ort_training), str(SCRIPT), generate.__file__, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return home


@pytest.mark.parametrize("name", RUNS)
def test_the_summed_gradients_are_torchs(name: str, results: Path) -> None:
    error = results / name / "error.txt"
    assert not error.exists(), error.read_text()
    found = dict(np.load(results / name / "result.npz"))
    made = request(name)
    given = {part: torch.from_numpy(made.inputs[part]) for part in ("images", *made.loss.inputs)}
    outputs = made.module(given["images"])
    params = dict(made.module.named_parameters())
    loss = made.loss.total(outputs, {**given, **params})
    gradients = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
    np.testing.assert_allclose(found["logits"], outputs.detach(), atol=2e-6, rtol=1e-5)
    np.testing.assert_allclose(found["loss"], loss.item(), rtol=1e-5)
    assert {f"grad::{name}" for name in params} == {key for key in found if key.startswith("grad::")}
    for name, gradient in gradients.items():
        size = gradient.abs().max().item()
        assert size > 0
        expected = gradient.numpy().reshape(found[f"grad::{name}"].shape)
        np.testing.assert_allclose(found[f"grad::{name}"] / size, expected / size, atol=2e-5)


def test_every_artifact_is_of_an_ir_that_the_runtime_of_1_19_reads(results: Path) -> None:
    versions = [np.load(file)["ir"] for file in results.glob("*/result.npz")]
    assert len(versions) == len(RUNS)
    assert np.max(versions) <= generate.MAX_IR_VERSION


def test_every_operation_that_is_let_through_is_compared_with_torch_here() -> None:
    made = [request(name).program for name in RUNS]
    seen = {op.kind for program in made for op in program.ops(("forward", "loss"))}
    assert {kind for each in CASES.values() for kind in each.kinds} <= seen
    assert PLAIN | set(FORMS) == seen


@pytest.mark.parametrize("name", CASES)
def test_the_form_for_training_computes_the_same_forward_pass(name: str) -> None:
    made = request(name)
    model = forward_model(made.program, made.values)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], feeds(made))
    expected = made.module(torch.from_numpy(made.inputs["images"])).detach()
    np.testing.assert_allclose(logits, expected, atol=2e-6, rtol=1e-5)


def test_attention_is_refused_by_layer_and_nothing_is_written(tmp_path: Path) -> None:
    attended = case("conv-norm", True)
    with pytest.raises(
        ExportError, match=r"layer 'a' has meta attention, which ONNX Runtime training cannot"
    ):
        write_artifacts(attended.program, attended.values(), frozenset({"a"}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_operation_without_gradient_is_refused_by_name_and_layer() -> None:
    made = request("piecewise")
    sections = {**made.program.sections}
    first, *rest = sections["forward"]
    sections["forward"] = (type(first)("Mystery", first.inputs, first.outputs, first.layer), *rest)
    odd = type(made.program)(**{**vars(made.program), "sections": sections})
    with pytest.raises(ExportError, match=r"layer 'stem': ONNX Runtime training has no gradient for Mystery"):
        forward_model(odd, made.values)


def test_a_missing_environment_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = request("piecewise")
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with pytest.raises(
        UsageError, match=r"needs onnxruntime-training-cpu.*pip install .*ort-training"
    ) as caught:
        write_artifacts(made.program, made.values, frozenset({"head"}), tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(UsageError, match=rf"{PYTHON_VARIABLE}: no such file"):
        write_artifacts(made.program, made.values, frozenset({"head"}), tmp_path)


def test_a_python_that_cannot_train_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = request("piecewise")
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    with pytest.raises(ExportError, match="cannot make its artifacts") as caught:
        write_artifacts(made.program, made.values, frozenset({"head"}), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_command_without_onnxruntime_training_says_what_to_do_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    model, bundle = tmp_path / "model.onnx", tmp_path / "bundle"
    weight = numpy_helper.from_array(np.ones((3, 6), np.float32), "head.weight")
    shapes = (("x", ["N", 6]), ("y", ["N", 3]))
    x, y = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in shapes)
    gemm = helper.make_node("Gemm", ["x", "head.weight"], ["y"], transB=1)
    onnx.save(helper.make_model(helper.make_graph([gemm], "graph", x, y, [weight])), model)
    assert main(["--from-onnx", str(model), "-o", str(bundle), "--ort-training"]) == 2
    assert "--ort-training needs onnxruntime-training-cpu" in capsys.readouterr().err
    assert not bundle.exists()


def test_an_environment_with_onnxruntime_training_exports_by_itself(ort_training: Path) -> None:
    code = "from edge_adapt.export.ort_training import artifacts; print(artifacts.python_with_ort_training())"
    environment = {name: value for name, value in os.environ.items() if name != PYTHON_VARIABLE}
    command = [str(ort_training), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(ort_training)
