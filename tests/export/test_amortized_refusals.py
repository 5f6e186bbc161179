"""What a bundle that adapts by forward passes refuses: plans and models of others, numbers that overflow, options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from edge_adapt.edge import Bundle, EdgeAdaptError
from edge_adapt.edge.bundle import TensorFile, write_tensors
from edge_adapt.edge.engines import engine_named
from edge_adapt.edge.errors import BundleError, UsageError
from edge_adapt.edge.inputs import query_from_arrays
from edge_adapt.export import export_bundle, export_prototypes
from edge_adapt.export.capture import to_onnx
from edge_adapt.export.cli import main
from torch import nn

from .learners import SPEC, extractor, learner, write

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 14, 14, 1), np.uint8)
LABELS = np.arange(8) % 4


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Bundles of much the same network; the last one adapts by gradient steps."""
    home, small = tmp_path_factory.mktemp("bundles"), learner("simple-cnaps", widths=(6,))
    write(home / "class", "simple-cnaps", small)
    write(home / "identity", "simple-cnaps", small, covariance="identity")
    write(home / "prototypes", "prototypes", learner("prototypes", widths=(6,)))
    write(home / "generated", "cnaps", learner("cnaps", film=False, widths=(6,)))
    torch.manual_seed(0)
    network = nn.Sequential(extractor((6,), film=False), nn.Linear(6, 6))
    export_bundle(network, home / "gradient", example_input=np.zeros((1, 1, 14, 14), np.float32), input=SPEC)
    return {path.name: Bundle.open(path) for path in sorted(home.iterdir())}


def test_a_plan_of_another_bundle_is_refused(bundles: dict[str, Bundle]) -> None:
    plans = {name: bundle.plan(samples=8) for name, bundle in bundles.items()}
    for name, bundle in bundles.items():
        for other, plan in plans.items():
            if other != name:
                with pytest.raises(UsageError, match=r"the plan does not fit .*: plan with this bundle"):
                    bundle.adapt(PIXELS, LABELS, plan=plan)
        assert bundle.adapt(PIXELS, LABELS, plan=plans[name]).adapted.tensors


def test_a_model_without_its_head_is_refused(bundles: dict[str, Bundle], tmp_path: Path) -> None:
    bundle = bundles["class"]
    bundle.adapt(PIXELS, LABELS).save(tmp_path / "adapted")
    delta = TensorFile.open(tmp_path / "adapted" / "delta.safetensors")
    tensors = {name: delta.copy(name) for name in delta.entries}
    for gone in ("head.factors", "0.film.scale"):
        write_tensors(delta.path, {name: value for name, value in tensors.items() if name != gone})
        with pytest.raises(BundleError, match=rf"tensor '{gone}' is missing"):
            bundle.load(tmp_path / "adapted")
    with pytest.raises(UsageError, match="a bundle of kind simple-cnaps has no head before it is adapted"):
        bundle.predict(PIXELS)


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("engine", ["native", "reference", "onnxruntime"])
def test_a_micro_batch_without_samples_is_refused(size: int, engine: str, bundles: dict[str, Bundle]) -> None:
    files = bundles["prototypes"].files
    samples = query_from_arrays(PIXELS, SPEC)
    with pytest.raises(UsageError, match=f"micro_batch: expected a positive integer, got {size}"):
        engine_named(engine, files.path).predict(files.program, files.weights, samples, size)


def test_numbers_that_overflow_are_named(tmp_path: Path) -> None:
    """Features of 1e21 make biases infinite; those of 1e19 only the logits of a sample far away."""
    torch.manual_seed(0)
    rows = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)
    bundle = Bundle.open(export_prototypes(nn.Linear(7, 4), tmp_path / "b", classes=3, example_input=rows))
    labels = np.arange(9) % 3
    with pytest.raises(EdgeAdaptError, match=r"'head\.bias' as computed from the support set is not finite"):
        bundle.adapt(rows * np.float32(1e21), labels)
    rows[:3, 0] = 1e19
    rows[0, 0] = np.float32(3e38)
    with pytest.raises(EdgeAdaptError) as refusal:
        bundle.adapt(rows, labels)
    assert "steps" not in str(refusal.value)
    assert "too large for float32" in str(refusal.value) or "is not finite" in str(refusal.value)


def test_options_that_mean_nothing_for_prototypes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model.onnx", tmp_path / "out"
    model.write_bytes(to_onnx(extractor((6,), film=False), (1, 14, 14)).SerializeToString())
    words = ["--from-onnx", str(model), "-o", str(out), "--prototypes", "--classes", "3"]

    def refused(option: str) -> str:
        return str(main([*words, option])) + capsys.readouterr().err.strip()

    assert refused("--ort-training").startswith("2error: --prototypes: nothing is trained on the device")
    assert refused("--dry-run").startswith("2error: --dry-run lists what a backward pass stores")
    assert not out.exists()
