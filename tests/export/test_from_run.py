"""A real meta-training run becomes a bundle that adapts as the cloud says the device does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from edge_adapt.cloud import TrainedRun, load_run, train
from edge_adapt.cloud.inner.base import Meta
from edge_adapt.cloud.inner.device import Adapted, adapt
from edge_adapt.edge.bundle import BundleFiles, read_bundle
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export import export_bundle
from edge_adapt.export.cli import main

from .conv4 import blobs

SMALL = {
    "task.shots": 1,
    "train.outer_steps": 2,
    "train.validate_every": 2,
    "train.validation_tasks": 2,
    "train.test_tasks": 2,
    "method.penalty": "none",
    "method.inner_steps": 2,
}
SAMPLES = 5
IMAGES, LABELS = blobs(28, 1, SAMPLES, seed=6), np.arange(SAMPLES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "small"
    train("pmeta-conv4-glyphs", out=out, overrides=SMALL)
    return out


@pytest.fixture(scope="module")
def bundle(run: Path) -> BundleFiles:
    assert main([str(run), "-o", str(run.parent / "bundle")]) == 0
    return read_bundle(run.parent / "bundle")


def adapt_in_the_cloud(run: TrainedRun) -> Adapted:
    """One task, float64."""
    meta: Meta = run.meta.to(torch.float64)
    images, labels = torch.from_numpy(IMAGES)[None], torch.from_numpy(LABELS)[None]
    return adapt(run.parts.network, run.parts.method.config, meta, images, labels)


def test_the_programs_steps_are_the_clouds(run, bundle):
    trained = load_run(run)
    expected = adapt_in_the_cloud(trained)
    values = {name: bundle.weights.copy(name) for name in bundle.weights.entries}
    values |= {
        "images": IMAGES,
        "labels": LABELS,
        "class_mask": np.ones(5),
        "sample_weight": np.full(SAMPLES, 1 / SAMPLES),
    }
    params = [param for layer in bundle.program.layers for param in layer.params]
    assert np.all(values["alpha"] != 0)
    for step in range(bundle.program.steps):
        outputs = ["loss", *(f"updated::{name}" for name in params)]
        found = interpret(bundle.program, values, outputs, np.float64, step)
        np.testing.assert_allclose(found["loss"], expected.losses[0, step], atol=1e-9)
        values |= {name: found[f"updated::{name}"] for name in params}
    for name in params:
        np.testing.assert_allclose(values[name], expected.weights[name][0], atol=1e-9, err_msg=name)


@pytest.mark.filterwarnings("ignore:.*the inner problem is not solved")
@pytest.mark.parametrize("method", ["boil", "reptile", "imaml", "mrml"])
def test_a_run_of_another_method_becomes_a_bundle_that_adapts_as_the_cloud_says(method, tmp_path):
    """The device takes plain gradient steps of the run's step sizes: no proximal term, no weight decay."""
    overrides = {**SMALL, "method.name": method, "method.attention": False, "method.first_order_until": 0.0}
    train("pmeta-conv4-glyphs", out=tmp_path / "run", overrides={**overrides, "train.outer_steps": 1})
    trained = load_run(tmp_path / "run")
    bundle = read_bundle(export_bundle(tmp_path / "run", tmp_path / "bundle"))
    expected = adapt_in_the_cloud(trained)
    values = {name: bundle.weights.copy(name) for name in bundle.weights.entries}
    np.testing.assert_array_equal(values["alpha"], trained.alpha)
    values |= {"images": IMAGES, "labels": LABELS, "class_mask": np.ones(5)}
    values["sample_weight"] = np.full(SAMPLES, 1 / SAMPLES)
    params = [param for layer in bundle.program.layers for param in layer.params]
    outputs = [f"updated::{name}" for name in params]
    for step in range(bundle.program.steps):
        found = interpret(bundle.program, values, outputs, np.float64, step)
        values |= {name: found[f"updated::{name}"] for name in params}
    for name in params:
        np.testing.assert_allclose(
            values[name], expected.weights[name].expand(1, *values[name].shape)[0], atol=1e-9, err_msg=name
        )


def test_layers_caps_and_provenance_come_from_the_run(run, bundle):
    trained = load_run(run)
    for layer, cap, row in zip(trained.layers, trained.caps, bundle.manifest.layers, strict=True):
        assert (row.name, row.kind, row.weight_words) == (layer.name, layer.kind, layer.weight_words)
        assert (row.input_words, row.macs) == (layer.input_words, layer.macs)
        assert row.cap == cap
    assert bundle.manifest.name == "conv4-glyphs-p-meta"
    assert bundle.manifest.samples == SAMPLES
    assert bundle.manifest.input == trained.spec
    assert bundle.manifest.provenance["meta_test"]["tasks"] == 2


def test_the_command_says_where_the_bundle_is(run, tmp_path, capsys):
    assert main([str(run), "-o", str(tmp_path / "b")]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert str(tmp_path / "b") in output.err
    assert len(output.err.splitlines()) == 1


def test_a_run_that_is_none_is_one_line_and_nothing_is_written(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), "-o", str(tmp_path / "b")]) == 1
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_no_bundle_is_a_usage_error(tmp_path, capsys):
    (tmp_path / "b").write_text("mine")
    assert main([str(tmp_path / "nowhere"), "-o", str(tmp_path / "b")]) == 2
    assert "exists and is not a directory" in capsys.readouterr().err


def test_a_missing_option_is_a_usage_error(capsys):
    assert main(["runs/a"]) == 2
    assert "--out" in capsys.readouterr().err


def test_help_ends_with_examples(capsys):
    assert main(["--help"]) == 0
    assert [line.strip() for line in capsys.readouterr().out.strip().splitlines()[-4:]] == [
        "Examples:",
        "export-bundle runs/glyphs -o bundle/",
        "export-bundle --from-onnx model.onnx -o bundle/ --layers 'classifier*'",
        "export-bundle --from-onnx resnet18.onnx -o bundle/ --prototypes --cut-classifier --classes 20",
    ]
