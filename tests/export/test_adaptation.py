"""K steps of adaptation driven through stock onnxruntime, two releases, against plain torch in float64."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from edge_adapt.edge.bundle import read_bundle
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export import export_bundle
from edge_adapt.export.adaptation import adaptation, tensors
from edge_adapt.export.bundle import external
from edge_adapt.export.onnx_graph import training_graph
from edge_adapt.export.passes import RecordedSelections, apply
from edge_adapt.export.source import Source

from .conv4 import PLANS, STEPS, WAYS, Adaptation, adapt_in_torch, blobs, conv4_source

SAMPLES = 10
MICRO_BATCHES = (1, 5, SAMPLES)
LABELS = np.arange(SAMPLES) % WAYS
IMAGES, QUERY = blobs(28, 1, SAMPLES, seed=4), blobs(28, 1, 15, seed=5)


@dataclass(frozen=True)
class Expected:
    source: Source
    adaptation: Adaptation
    logits: np.ndarray


@cache
def expected(plan: str) -> Expected:
    source = conv4_source(28, PLANS[plan])
    adapted = adapt_in_torch(source, IMAGES, LABELS)
    return Expected(source, adapted, adapted.module(torch.from_numpy(QUERY)).detach().numpy())


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle per plan, with one more model in it whose channel selections are inputs."""
    home = tmp_path_factory.mktemp("bundles")
    paths = {plan: export_bundle(expected(plan).source, home / plan) for plan in PLANS}
    for plan, path in paths.items():
        source = expected(plan).source
        recorded = apply(RecordedSelections(), read_bundle(path).program).program
        model = training_graph(recorded, external(path / "weights.safetensors"), source.updated_layers)
        (path / "recorded.onnx").write_bytes(model.SerializeToString())
    return paths


def write_task(path: Path, plan: str, *, recorded: bool) -> None:
    one = expected(plan)
    task: dict[str, np.ndarray] = {
        "images": IMAGES.astype(np.float32),
        "labels": LABELS,
        "class_mask": np.ones(WAYS, np.float32),
        "query": QUERY.astype(np.float32),
        "micro_batches": np.array(MICRO_BATCHES),
    }
    for name, column in zip(one.source.layer_names, one.source.alpha.T, strict=True):
        for part in ("weight", "bias") if name in one.source.updated_layers else ():
            task[f"param::{name}.{part}"] = (
                dict(one.source.module.named_parameters())[f"{name}.{part}"].detach().numpy()
            )
            task[f"alpha::{name}.{part}"] = column
    for key in one.adaptation.keeps[0] if recorded else ():
        if key.split("::")[1] in one.source.updated_layers:
            task[key] = np.stack([keeps[key] for keeps in one.adaptation.keeps]).astype(np.float32)
    np.savez(path, **task)


def run_script(python: str, model: Path, task: Path) -> dict[str, np.ndarray]:
    result = task.with_name("result.npz")
    script = Path(__file__).with_name("ort_script.py")
    command = [python, str(script), str(model), str(task), str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(np.load(result))


def check_against_torch(found: dict[str, np.ndarray], plan: str) -> None:
    one = expected(plan)
    for size in MICRO_BATCHES:
        np.testing.assert_allclose(found[f"{size}|logits"], one.logits, atol=1e-4)
        np.testing.assert_allclose(found[f"{size}|loss"], one.adaptation.losses, atol=1e-4)
        for name in one.source.updated_layers:
            weight = one.adaptation.module.get_parameter(f"{name}.weight").detach().numpy()
            np.testing.assert_allclose(found[f"{size}|{name}.weight"], weight, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("plan", PLANS)
def test_adaptation_in_the_current_onnxruntime_is_torchs(bundles, plan, tmp_path):
    write_task(tmp_path / "task.npz", plan, recorded=True)
    found = run_script(sys.executable, bundles[plan] / "recorded.onnx", tmp_path / "task.npz")
    assert found["version"] == onnxruntime.__version__
    check_against_torch(found, plan)


@pytest.mark.parametrize("plan", PLANS)
def test_adaptation_in_an_older_onnxruntime_is_torchs(bundles, plan, tmp_path, old_onnxruntime):
    write_task(tmp_path / "task.npz", plan, recorded=True)
    found = run_script(str(old_onnxruntime), bundles[plan] / "recorded.onnx", tmp_path / "task.npz")
    assert found["version"] == "1.19.2"
    check_against_torch(found, plan)


@pytest.mark.parametrize("plan", PLANS)
def test_micro_batches_do_not_matter_with_selections_made_on_the_way(bundles, plan, tmp_path):
    write_task(tmp_path / "task.npz", plan, recorded=False)
    found = run_script(sys.executable, bundles[plan] / "training.onnx", tmp_path / "task.npz")
    names = [f"{name}.weight" for name in expected(plan).source.updated_layers] + ["loss"]
    for name in names:
        for size in MICRO_BATCHES[1:]:
            np.testing.assert_allclose(found[f"{size}|{name}"], found[f"1|{name}"], atol=1e-5, err_msg=name)


def test_an_older_onnxruntime_runs_the_training_model_as_it_is(bundles, tmp_path, old_onnxruntime):
    write_task(tmp_path / "task.npz", "sparse", recorded=False)
    model = bundles["sparse"] / "training.onnx"
    old, new = (
        run_script(python, model, tmp_path / "task.npz") for python in (str(old_onnxruntime), sys.executable)
    )
    np.testing.assert_allclose(old["5|logits"], new["5|logits"], atol=1e-4)


@pytest.mark.parametrize("plan", PLANS)
def test_the_programs_own_updates_repeated_are_torchs(plan):
    one = expected(plan)
    program = apply(RecordedSelections(), adaptation(one.source)).program
    values = {
        **tensors(one.source, program),
        "images": IMAGES, "labels": LABELS, "class_mask": np.ones(WAYS),
        "sample_weight": np.full(SAMPLES, 1 / SAMPLES),
    }  # fmt: skip
    params = [param for layer in program.layers for param in layer.params]
    known = set(program.tensors)
    for step in range(STEPS):
        keeps = {key: value for key, value in one.adaptation.keeps[step].items() if key in known}
        found = interpret(
            program, {**values, **keeps}, [f"updated::{name}" for name in params], np.float64, step
        )
        values |= {name: found[f"updated::{name}"] for name in params}
    for name in params:
        weight = one.adaptation.module.get_parameter(name).detach().numpy()
        np.testing.assert_allclose(values[name], weight, atol=1e-8, err_msg=name)
