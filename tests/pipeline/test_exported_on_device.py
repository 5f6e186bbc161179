"""A bundle that `export_bundle` wrote, used on the device and handed on as ordinary ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge import Bundle, UsageError
from edge_adapt.edge.bundle import merge, read_adapted, read_bundle
from edge_adapt.export import export_bundle
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ..edge.commands import edge_adapt, edge_adapt_json
from ..export.conv4 import PLANS, WAYS, blobs, conv4_source

SIZES = [28, 84]
SAMPLES = 10


def pixels(size: int, seed: int) -> NDArray[np.uint8]:
    """Smooth pictures, uint8 (n, H, W, C); each of the five classes has its own brightness."""
    values = blobs(size, 1 if size == 28 else 3, SAMPLES, seed)
    bright = np.arange(SAMPLES) % WAYS * 30
    return (
        np.clip(60 + 25 * values + bright[:, None, None, None], 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    )


@pytest.fixture(scope="module", params=SIZES)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported bundle (28 or 84 pixels), a support set and the model adapted to it."""
    home: Path = tmp_path_factory.mktemp(f"exported{request.param}")
    export_bundle(conv4_source(request.param, PLANS["sparse"]), home / "bundle")
    labels = np.arange(SAMPLES) % WAYS
    np.savez(home / "support.npz", images=pixels(request.param, 1), labels=labels)
    arguments = ("run", home / "bundle", "--support", home / "support.npz", "-o", home / "adapted")
    edge_adapt(*arguments, "--dynamic-budget", "5MB")
    return home


def query(home: Path) -> NDArray[np.uint8]:
    return pixels(28 if "exported28" in home.name else 84, 2)


def test_the_self_test_by_pytorch_passes(home: Path) -> None:
    result = edge_adapt_json("verify", home / "bundle")
    assert result["passed"]
    assert max(check["error"] for check in result["checks"]) < 1e-4
    assert len(result["checks"]) > 5


def test_the_run_kept_its_promise_and_changed_only_the_layers_of_the_plan(home: Path) -> None:
    report = json.loads((home / "adapted" / "report.json").read_text())
    assert report["kept"] is True
    assert report["measured_peak_bytes"] <= report["planned_peak_bytes"] + 2 * 2**20
    assert report["measured_dynamic_bytes"] <= report["dynamic_bytes"] <= 5_000_000
    changed = load_file(home / "adapted" / "delta.safetensors")
    layers = {layer for step in report["layers"] for layer in step}
    assert {name.split(".")[0] for name in changed} == layers == {"norm2", "conv4", "norm4", "fc"}
    original = load_file(home / "bundle" / "weights.safetensors")
    assert all(not np.array_equal(value, original[name]) for name, value in changed.items())


def test_the_merged_model_computes_in_onnxruntime_what_predict_computes(home: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `ort` is not installed")
    edge_adapt("merge", home / "adapted", "--bundle", home / "bundle", "-o", tmp_path / "merged")
    session = onnxruntime.InferenceSession(
        tmp_path / "merged" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    bundle = Bundle.open(home / "bundle")
    images = query(home)
    (only,) = session.get_inputs()
    (logits,) = session.run(["logits"], {only.name: bundle.files.manifest.input.preprocess(images)})
    adapted = bundle.load(home / "adapted").logits(images)
    np.testing.assert_allclose(logits, adapted, rtol=0, atol=1e-4)
    before = bundle.predict(images)
    assert np.abs(before - bundle.load(home / "adapted").predict(images)).max() > 0.01
    assert json.loads((tmp_path / "merged" / "classes.json").read_text()) == [str(n) for n in range(WAYS)]


def test_only_the_changed_bytes_of_the_weights_differ_after_merging(home: Path, tmp_path: Path) -> None:
    files = read_bundle(home / "bundle")
    merge(files, read_adapted(home / "adapted", files), tmp_path / "merged")
    changed = load_file(home / "adapted" / "delta.safetensors")
    original = load_file(home / "bundle" / "weights.safetensors")
    for name, value in load_file(tmp_path / "merged" / "weights.safetensors").items():
        np.testing.assert_array_equal(value, changed.get(name, original[name]))
    assert (tmp_path / "merged" / "model.onnx").read_bytes() == (home / "bundle" / "eval.onnx").read_bytes()


def test_merging_destroys_nothing(home: Path, tmp_path: Path) -> None:
    files = read_bundle(home / "bundle")
    adapted: Any = read_adapted(home / "adapted", files)
    (tmp_path / "notes.txt").write_text("precious")
    with pytest.raises(UsageError, match="exists and is not a merged model"):
        merge(files, adapted, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "precious"
