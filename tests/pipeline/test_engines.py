"""Three engines, one bundle: K steps with a step size of its own for every layer and step, against torch.

4Conv without meta attention (ONNX Runtime training cannot express it), some layers frozen in some steps. The
engine on ONNX Runtime training runs in an environment of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from edge_adapt.edge import Bundle, BundleError, UsageError, native
from edge_adapt.edge.bundle import Overlay
from edge_adapt.edge.cli import main
from edge_adapt.edge.engines import NonFiniteError, engine_named
from edge_adapt.edge.inputs import from_arrays
from edge_adapt.edge.plan import search_plan
from edge_adapt.export import export_bundle
from edge_adapt.export.bundle import check_target
from torch import nn

from ..export.conv4 import PLANS, WAYS, adapt_in_torch, blobs, conv4_source

SCRIPT = Path(__file__).with_name("engine_script.py")
EXAMPLES = Path(__file__).parents[2] / "examples"
SAMPLES, QUERIES = 25, 6
MICRO_BATCHES = (1, 4, SAMPLES)
TOLERANCE = 1e-4
ENGINES = ("reference", "onnxruntime", "ort-training")


def grey(count: int, seed: int) -> np.ndarray:
    """Smooth random images as uint8 pixels (n, 28, 28, 1)."""
    return np.clip(blobs(28, 1, count, seed) * 50 + 128, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


IMAGES, LABELS, QUERY = grey(SAMPLES, 3), np.arange(SAMPLES) % WAYS, grey(QUERIES, 4)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(conv4_source(28, PLANS["sparse"]), tmp_path_factory.mktemp("attended") / "bundle")


@pytest.fixture(scope="module")
def trainable(tmp_path_factory: pytest.TempPathFactory, ort_training: Path) -> Path:
    """A bundle with ONNX Runtime training's artifacts, made from this environment by way of the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_ADAPT_ORT_TRAINING", str(ort_training))
        source = conv4_source(28, PLANS["sparse"], attended=False)
        return export_bundle(source, tmp_path_factory.mktemp("plain") / "bundle", ort_training=True)


@pytest.fixture(scope="module")
def truth() -> tuple[list[float], np.ndarray, np.ndarray]:
    """Losses, logits of the query before and after, by torch in float64."""
    source = conv4_source(28, PLANS["sparse"], attended=False)
    adapted = adapt_in_torch(source, source.input.preprocess(IMAGES).astype(np.float64), LABELS)
    query = torch.from_numpy(source.input.preprocess(QUERY))
    assert source.module is not None
    before, after = source.module.double()(query.double()), adapted.module(query.double())
    return adapted.losses, before.detach().numpy(), after.detach().numpy()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with support.npz and query.npy."""
    path = tmp_path_factory.mktemp("task")
    np.savez(path / "support.npz", images=IMAGES, labels=LABELS)
    np.save(path / "query.npy", QUERY)
    return path


@pytest.fixture(scope="module", params=ENGINES)
def result(request: pytest.FixtureRequest, trainable: Path, home: Path, ort_training: Path) -> dict[str, Any]:
    python = ort_training if request.param == "ort-training" else Path(sys.executable)
    return adapted(python, trainable, request.param, home)


def adapted(python: Path, bundle: Path, engine: str, home: Path) -> dict[str, Any]:
    """Run engine_script.py on the support set and query in `home`."""
    out = home / f"{bundle.parent.name}-{engine}"
    out.mkdir()
    inputs = [str(path) for path in (bundle, home / "support.npz", home / "query.npy")]
    command = [str(python), str(SCRIPT), *inputs, engine, str(out), ",".join(map(str, MICRO_BATCHES))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(out / "result.npz"))


def test_every_engine_gives_torchs_logits_after_all_steps(
    result: Mapping[str, Any], truth: tuple[list[float], np.ndarray, np.ndarray]
) -> None:
    losses, before, after = truth
    size = np.abs(after).max()
    assert np.abs(after - before).max() > 100 * TOLERANCE * size  # the steps did something
    for micro_batch in MICRO_BATCHES:
        np.testing.assert_allclose(result[f"{micro_batch}|logits"] / size, after / size, atol=TOLERANCE)
        np.testing.assert_allclose(result[f"{micro_batch}|losses"], losses, rtol=TOLERANCE)


def test_25_micro_batches_of_one_are_one_of_25(result: Mapping[str, Any]) -> None:
    changed = [name.partition("|")[2] for name in result if name.startswith("1|") and "." in name]
    assert changed
    for name in changed:
        whole = result[f"{SAMPLES}|{name}"]
        for micro_batch in MICRO_BATCHES[:-1]:
            np.testing.assert_allclose(result[f"{micro_batch}|{name}"], whole, atol=1e-5)


def test_only_layers_of_the_plan_change(result: Mapping[str, Any]) -> None:
    source = conv4_source(28, PLANS["sparse"], attended=False)
    changed = {name.partition("|")[2].rpartition(".")[0] for name in result if "." in name}
    assert changed == source.updated_layers


def test_no_engine_loads_torch(result: Mapping[str, Any]) -> None:
    assert not result["torch"]


def test_an_interrupted_run_continues_to_the_same_bits(result: Mapping[str, Any]) -> None:
    assert result["resumed"]


def test_regression_on_arrays_is_the_same_in_every_engine(tmp_path: Path, ort_training: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 2))
        x, targets, query = torch.randn(SAMPLES, 6), torch.randn(SAMPLES, 2), torch.randn(QUERIES, 6)
    table = np.array([[0.1, 0.0], [0.05, 0.2], [0.0, 0.1]], np.float32)
    options = {"step_size": table, "loss": "mean-squared-error", "ort_training": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_ADAPT_ORT_TRAINING", str(ort_training))
        bundle = export_bundle(module, tmp_path / "made" / "bundle", example_input=x, **options)
    np.savez(tmp_path / "support.npz", images=x.numpy(), targets=targets.numpy())
    np.save(tmp_path / "query.npy", query.numpy())
    expected = regression_in_torch(module, table, x, targets, query)
    for engine in ENGINES:
        python = ort_training if engine == "ort-training" else Path(sys.executable)
        found = adapted(python, bundle, engine, tmp_path)
        assert found["resumed"]
        for micro_batch in MICRO_BATCHES:
            np.testing.assert_allclose(found[f"{micro_batch}|logits"], expected, atol=TOLERANCE)


def regression_in_torch(
    module: nn.Sequential, table: np.ndarray, x: torch.Tensor, targets: torch.Tensor, query: torch.Tensor
) -> np.ndarray:
    """The query's outputs after one gradient step per row of the table, float64."""
    module = module.double()
    for row in table:
        params = list(module.parameters())
        loss = nn.functional.mse_loss(module(x.double()), targets.double())
        gradients = torch.autograd.grad(loss, params)
        for size, param, gradient in zip(np.repeat(row, 2), params, gradients, strict=True):
            param.data -= float(size) * gradient
    return module(query.double()).detach().numpy()


def test_the_onnxruntime_engine_knows_attention(bundle: Path) -> None:
    models = [Bundle.open(bundle).adapt(IMAGES, LABELS, engine=engine) for engine in ENGINES[:2]]
    expected, found = (model.logits(QUERY) for model in models)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())
    np.testing.assert_allclose(*(model.report["losses"] for model in models), rtol=1e-5)


def run(bundle: Path, support: Path, out: Path, *more: str) -> int:
    words = ["run", str(bundle), "--support", str(support), "-o", str(out), "--engine", "onnxruntime"]
    return main([*words, *more])


@pytest.fixture
def support(tmp_path: Path) -> Path:
    np.savez(tmp_path / "support.npz", images=IMAGES, labels=LABELS)
    return tmp_path / "support.npz"


def test_run_reports_no_planned_figures_but_a_measured_peak(
    bundle: Path, support: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, support, tmp_path / "adapted", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    planned = ("planned_peak_bytes", "static_bytes", "dynamic_bytes", "terms", "macs", "kept")
    assert [report[name] for name in (*planned, "measured_dynamic_bytes")] == [None] * 7
    assert report["layers"]
    assert report["engine"] == "onnxruntime"
    if sys.platform.startswith("linux"):
        assert report["measured_peak_bytes"] > 0
    assert run(bundle, support, tmp_path / "adapted") == 0  # the table for people has the same gaps
    predicted = ["predict", str(tmp_path / "adapted"), "--bundle", str(bundle), "--input", str(support)]
    assert main(predicted) == 0


def test_verify_proves_the_onnxruntime_engine(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle), "--engine", "onnxruntime", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert len(checks) > 10


def test_verify_proves_the_ort_training_engine(trainable: Path, ort_training: Path) -> None:
    code = "import sys; from edge_adapt.edge.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [str(ort_training), "-c", code, "verify", str(trainable), "--engine", "ort-training", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(json.loads(done.stdout)["checks"]) > 10


def test_a_loss_that_is_not_finite_names_the_step_and_keeps_the_last_one(bundle: Path) -> None:
    files = Bundle.open(bundle).files
    huge = Overlay(files.weights, {"alpha": files.weights.copy("alpha") * np.float32(1e25)})
    plan = search_plan(files.program, huge.mapped("alpha"), SAMPLES, 3)
    support = from_arrays(IMAGES, LABELS, files.manifest.input)
    engine = engine_named("onnxruntime", bundle)
    with pytest.raises(
        NonFiniteError, match=r"step 2 of 3: .* is not finite; kept the weights after 1"
    ) as caught:
        engine.adapt(files.program, plan, huge, support)
    kept = caught.value.adaptation
    assert kept.steps_done == len(kept.losses) == 1
    assert all(np.isfinite(value).all() for value in kept.updated.values())


def test_a_budget_is_refused_by_an_engine_that_does_not_plan(
    bundle: Path, support: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, support, tmp_path / "adapted", "--memory-budget", "8MB") == 2
    assert (
        "does not plan its memory and cannot keep a budget; use --engine native or reference"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "adapted").exists()


def test_an_engine_whose_package_is_missing_says_what_to_install(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"needs onnxruntime-training-cpu 1.19.2.*\[ort-training\]"):
        engine_named("ort-training", bundle)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"needs onnxruntime .*pip install .*\[ort\]"):
        engine_named("onnxruntime", bundle)


def test_a_bundle_without_onnx_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no training.onnx; export it again"):
        engine_named("onnxruntime", tmp_path)


def example(python: str | Path, name: str, bundle: Path, support: Path, out: Path) -> list[float]:
    """Run a file of `examples/` and return the losses it prints."""
    command = [str(python), str(EXAMPLES / name), str(bundle), str(support), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert out.exists()
    return list(json.loads(done.stdout)["losses"])


def test_the_examples_on_numpy_and_stock_onnxruntime_agree(
    bundle: Path, support: Path, tmp_path: Path
) -> None:
    names = ("adapt_on_device.py", "adapt_with_onnxruntime.py")
    device, stock = (
        example(sys.executable, name, bundle, support, tmp_path / f"{name}.npz") for name in names
    )
    assert len(device) == 4
    assert device[-1] < device[0]
    np.testing.assert_allclose(stock, device, rtol=1e-5)


def test_the_example_on_onnx_runtime_training_agrees(
    trainable: Path, support: Path, tmp_path: Path, ort_training: Path
) -> None:
    expected = example(sys.executable, "adapt_on_device.py", trainable, support, tmp_path / "adapted")
    found = example(ort_training, "adapt_with_ort_training.py", trainable, support, tmp_path / "checkpoint")
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_stock_examples_import_nothing_of_edge_adapt() -> None:
    for name in ("adapt_with_onnxruntime.py", "adapt_with_ort_training.py"):
        assert "import edge_adapt" not in (EXAMPLES / name).read_text()
        assert "from edge_adapt" not in (EXAMPLES / name).read_text()


def test_doctor_lists_the_engines_that_can_run(
    capsys: pytest.CaptureFixture[str], ort_training: Path
) -> None:
    main(["doctor", "--json"])
    compiled = ["native"] if native.available() else []
    assert json.loads(capsys.readouterr().out)["engines"] == [*compiled, "reference", "onnxruntime"]
    code = "from edge_adapt.edge.engines import installed_engines; print(*installed_engines())"
    done = subprocess.run([str(ort_training), "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if name != "native"] == list(ENGINES)


def test_a_bundle_with_artifacts_may_be_replaced_but_nothing_else(trainable: Path, tmp_path: Path) -> None:
    check_target(trainable)
    shutil.copytree(trainable, tmp_path / "bundle")
    (tmp_path / "bundle" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not a bundle"):
        check_target(tmp_path / "bundle")


def test_artifacts_hold_the_weights_once_and_no_constant_of_the_size_of_a_map(trainable: Path) -> None:
    folder, largest_map = trainable / "ort_training", 4 * 32 // 8 * 28 * 28
    models = {name: onnx.load(folder / f"{name}_model.onnx") for name in ("training", "eval", "optimizer")}
    sizes = [item.ByteSize() for model in models.values() for item in model.graph.initializer]
    assert sizes
    assert max(sizes) < largest_map // 10
    weights = trainable / "weights.safetensors"
    assert abs((folder / "checkpoint").stat().st_size / weights.stat().st_size - 1) < 0.1


def test_altered_artifacts_are_found_out(trainable: Path, tmp_path: Path) -> None:
    shutil.copytree(trainable, tmp_path / "bundle")
    (tmp_path / "bundle" / "ort_training" / "checkpoint").write_bytes(b"no")
    with pytest.raises(BundleError, match=r"ort_training/checkpoint: sha256 is"):
        Bundle.open(tmp_path / "bundle")
