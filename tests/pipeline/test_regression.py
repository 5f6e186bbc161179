"""Regression from meta-training to the device: sinusoids and the user's own arrays, by the commands a user types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from edge_adapt.cloud import TrainedRun, load_run, train
from edge_adapt.cloud.inner.device import adapt, query_logits
from edge_adapt.edge import Bundle
from edge_adapt.export import export_bundle
from numpy.typing import NDArray

from ..edge.commands import edge_adapt_here, edge_adapt_json

SHORT = {
    "train.outer_steps": 3,
    "train.validate_every": 3,
    "train.validation_tasks": 4,
    "train.test_tasks": 4,
}
FEATURES, OUTPUTS = 4, 2


def write_task(path: Path, rng: np.random.Generator, samples: int = 40) -> None:
    """A file of one task: two smooth functions of four features of very different scales."""
    scale, slope = np.array([1.0, 10.0, 0.1, 100.0]), rng.normal(size=(FEATURES, OUTPUTS))
    features = rng.normal(size=(samples, FEATURES))
    np.savez(
        path,
        inputs=(5 + features * scale).astype(np.float32),
        targets=np.tanh(features @ slope).astype(np.float32),
    )


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("tasks"), np.random.default_rng(0)
    for index in range(12):
        write_task(folder / f"machine{index:02}.npz", rng)
    return folder


@pytest.fixture(scope="module", params=["maml-mlp-sinusoid-10shot", "pmeta-mlp-sinusoid-10shot"])
def run(request: pytest.FixtureRequest, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the user's arrays, exported to `bundle` beside it."""
    home: Path = tmp_path_factory.mktemp("regression")
    arrays = {"data.name": "arrays", "task.queries": 20, "architecture.hidden": [12, 8]}
    train(request.param, home / "run", {**SHORT, **arrays}, data=tasks)
    export_bundle(home / "run", home / "bundle")
    return home / "run"


def support_of(tasks: Path, samples: int) -> dict[str, NDArray[np.float32]]:
    with np.load(tasks / "machine03.npz") as task:
        return {name: task[name][:samples] for name in ("inputs", "targets")}


def adapted_in_the_cloud(run: TrainedRun, task: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    """Outputs after adaptation, in float64, on the support samples themselves."""
    x = torch.from_numpy(run.spec.preprocess(task["inputs"]))[None].double()
    y = torch.from_numpy(task["targets"])[None].double()
    network = run.parts.network
    adapted = adapt(network, run.parts.method.config, run.meta.to(torch.float64), x, y)
    return query_logits(network, adapted, x)[0].numpy()


def test_the_bundle_carries_loss_preprocessing_and_the_reached_error(run: Path, tasks: Path) -> None:
    manifest = json.loads((run.parent / "bundle" / "manifest.json").read_text())
    trained = load_run(run)
    assert (manifest["loss"], manifest["classes"], manifest["samples"]) == ("mean-squared-error", OUTPUTS, 10)
    assert manifest["input"] == trained.spec.to_json()
    assert manifest["provenance"]["meta_test"].keys() == {"mse", "ci95", "tasks"}
    assert manifest["provenance"]["meta_test"]["mse"] == trained.test.mse > 0


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_the_device_computes_what_pytorch_computes(run: Path, tasks: Path, engine: str) -> None:
    if engine == "native":
        pytest.importorskip("edge_adapt.edge.engines.native", reason="no C compiler was found")
    task = support_of(tasks, 10)
    bundle = Bundle.open(run.parent / "bundle")
    model = bundle.adapt(task["inputs"], targets=task["targets"], engine=engine)
    expected = adapted_in_the_cloud(load_run(run), task)
    np.testing.assert_allclose(model.logits(task["inputs"]), expected, rtol=1e-4, atol=1e-5)
    error = float(np.square(expected - task["targets"]).mean())
    assert model.report["loss"] == pytest.approx(error, rel=1e-4)
    assert model.report["support_accuracy"] is None
    assert model.report["losses"][0] > model.report["loss"]


def test_plan_run_predict_and_verify_work_with_a_file_of_targets(
    run: Path, tasks: Path, tmp_path: Path
) -> None:
    bundle, support = run.parent / "bundle", tmp_path / "support.npz"
    np.savez(support, **support_of(tasks, 10))
    assert "failed" not in edge_adapt_here("verify", bundle).stdout
    plan = json.loads(edge_adapt_here("plan", bundle, "--json").stdout)
    report = edge_adapt_json("run", bundle, "--support", support, "-o", tmp_path / "adapted")
    assert report["samples"] == plan["samples"] == 10
    assert report["measured_dynamic_bytes"] <= report["dynamic_bytes"] == plan["dynamic_bytes"]
    arguments = ("predict", tmp_path / "adapted", "--bundle", bundle, "--input", support, "--json")
    found = json.loads(edge_adapt_here(*arguments).stdout)
    expected = adapted_in_the_cloud(load_run(run), support_of(tasks, 10))
    outputs = [row["outputs"] for row in found["predictions"]]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    shown = edge_adapt_here("run", bundle, "--support", support, "-o", tmp_path / "again").stdout
    assert "loss" in shown
    assert "accuracy" not in shown
