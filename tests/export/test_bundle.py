"""The bundle directory: every file, what is in it, and how it is replaced or refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from edge_adapt.edge.bundle import read_bundle
from edge_adapt.edge.errors import UsageError
from edge_adapt.export import export_bundle
from edge_adapt.export.source import Source
from safetensors.numpy import load_file

from .conv4 import LAYERS, PLANS, WAYS, blobs, conv4_source
from .truth import truth

MODELS = {"eval.onnx", "training.onnx"}
FILES = {"manifest.json", "program.json", "weights.safetensors", "selftest.safetensors", *MODELS}


def sparse_source() -> Source:
    source = conv4_source(28, PLANS["sparse"])
    steps, layers = source.alpha.shape
    caps = np.tile(np.arange(layers), (steps, 1))
    benefits = np.linspace(-0.1, 1, steps * layers).reshape(steps, layers)
    return Source(
        **{**vars(source), "caps": caps, "benefits": benefits, "provenance": {"recipe": "r", "seed": 3}}
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(sparse_source(), tmp_path_factory.mktemp("here") / "bundle")


def run(model: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def test_the_files_are_those_of_the_format_with_their_hashes(bundle):
    assert {file.name for file in bundle.iterdir()} == FILES
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    assert set(files) == FILES - {"manifest.json"}
    for name, digest in files.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest


def test_the_device_reads_it(bundle):
    read = read_bundle(bundle)
    assert (read.manifest.classes, read.manifest.steps, read.manifest.samples) == (WAYS, 3, 25)
    assert read.manifest.provenance["recipe"] == "r"
    assert [layer.index for layer in read.program.layers] == list(range(len(LAYERS)))


def test_the_manifest_describes_every_layer(bundle):
    rows = {row["name"]: row for row in json.loads((bundle / "manifest.json").read_text())["layers"]}
    assert list(rows) == list(LAYERS)
    assert rows["conv1"] == {
        "name": "conv1", "kind": "conv", "weight_words": 320, "input_words": 784, "macs": 28 * 28 * 32 * 9,
        "cap": None, "benefit": [0.0, pytest.approx(9 * 1.1 / 26 - 0.1), pytest.approx(18 * 1.1 / 26 - 0.1)],
    }  # fmt: skip
    assert rows["norm2"]["cap"] == [3, 3, 3]
    assert (rows["norm2"]["weight_words"], rows["norm2"]["input_words"]) == (64, 32 * 14 * 14)
    assert (rows["fc"]["weight_words"], rows["fc"]["macs"], rows["fc"]["cap"]) == (165, 160, None)


def test_only_attention_that_is_ever_used_is_shipped(bundle):
    attended = {name.split("::")[1] for name in load_file(bundle / "weights.safetensors") if "::" in name}
    assert attended == {"norm2", "conv4", "norm4"}


def test_weights_are_stored_once_and_the_models_point_at_them(bundle):
    weights = load_file(bundle / "weights.safetensors")
    raw = (bundle / "weights.safetensors").read_bytes()
    for name in ("eval.onnx", "training.onnx"):
        model = onnx.load(bundle / name, load_external_data=False)
        assert (bundle / name).stat().st_size < 60_000 < len(raw)
        outside = [
            tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL
        ]
        assert {tensor.name for tensor in outside} >= {f"{layer}.weight" for layer in LAYERS}
        for tensor in outside:
            place = {entry.key: entry.value for entry in tensor.external_data}
            first, length = int(place["offset"]), int(place["length"])
            assert place["location"] == "weights.safetensors"
            np.testing.assert_array_equal(
                np.frombuffer(raw[first : first + length], np.float32), weights[tensor.name].ravel()
            )


def test_the_models_keep_to_the_promised_versions(bundle):
    for name in ("eval.onnx", "training.onnx"):
        model = onnx.load(bundle / name, load_external_data=False)
        assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (8, [("", 18)])
        onnx.checker.check_model(str(bundle / name), full_check=True)


@pytest.mark.parametrize("samples", [1, 7])
def test_the_evaluation_model_computes_torchs_logits(bundle, samples):
    source = conv4_source()
    images = blobs(28, 1, samples, seed=8)
    expected = source.module.double()(torch.from_numpy(images)).detach().numpy()
    found = run(bundle / "eval.onnx", {"images": images.astype(np.float32)})
    assert list(found) == ["logits"]
    np.testing.assert_allclose(found["logits"], expected, atol=1e-5)


def test_the_training_model_has_defaults_for_every_parameter(bundle):
    source = sparse_source()
    images, labels = blobs(28, 1, 5, seed=9), np.arange(5)
    expected = truth(
        source.module.double(), images, labels, attention=source.attention, settings=source.settings
    )
    feeds = {
        "images": images.astype(np.float32), "labels": labels, "class_mask": np.ones(WAYS, np.float32),
        "sample_weight": np.full(5, 0.2, np.float32),
    }  # fmt: skip
    found = run(bundle / "training.onnx", feeds)
    updated = {f"grad::{layer}.{part}" for layer in source.updated_layers for part in ("weight", "bias")}
    assert set(found) == {"loss", "logits"} | updated
    np.testing.assert_allclose(found["loss"], expected.loss, atol=1e-5)
    for name in updated:
        np.testing.assert_allclose(found[name], expected.grads[name], atol=1e-4, err_msg=name)
    inputs = {item.name for item in onnx.load(bundle / "training.onnx", load_external_data=False).graph.input}
    assert inputs == {*feeds, *load_file(bundle / "weights.safetensors")} - {"alpha"}


def test_the_self_test_is_what_torch_computes_for_its_images(bundle):
    source, test = sparse_source(), load_file(bundle / "selftest.safetensors")
    images = source.input.preprocess(test["images"])
    expected = truth(
        source.module.double(), images, test["labels"], attention=source.attention, settings=source.settings
    )
    np.testing.assert_array_equal(test["alpha_mask"], PLANS["sparse"].any(0))
    assert test["loss"] == pytest.approx([expected.loss], rel=1e-6)
    names = {name.removeprefix("norm::") for name in test if name.startswith("norm::")}
    assert names == {f"{layer}.{part}" for layer in source.updated_layers for part in ("weight", "bias")}
    for name in names:
        gradient = expected.grads[f"grad::{name}"].ravel()
        count = min(64, gradient.size)
        picked = [gradient[index * gradient.size // count] for index in range(count)]
        assert test[f"norm::{name}"] == pytest.approx([np.linalg.norm(gradient)], rel=1e-6)
        np.testing.assert_allclose(test[f"entries::{name}"], picked, atol=1e-7)


def test_the_same_source_gives_the_same_bytes(bundle, tmp_path):
    again = export_bundle(sparse_source(), tmp_path / "again")
    for file in FILES:
        assert (again / file).read_bytes() == (bundle / file).read_bytes(), file


def test_a_bundle_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    target = export_bundle(conv4_source(attended=False), tmp_path / "bundle")
    before = (target / "manifest.json").read_bytes()
    export_bundle(sparse_source(), target)
    assert (target / "manifest.json").read_bytes() != before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    "names", [["photo.jpg"], ["manifest.json"], ["manifest.json", "program.json", "photo.jpg"]]
)
def test_what_is_no_bundle_is_not_overwritten(names, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    for name in names:
        content = '{"format": 1, "files": {"program.json": ""}}' if len(names) == 3 else "mine"
        (target / name).write_text(content)
    with pytest.raises(UsageError, match="exists and is not a bundle"):
        export_bundle(conv4_source(), target)
    assert {path.name for path in target.iterdir()} == set(names)


def test_a_file_is_not_overwritten(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="not a directory"):
        export_bundle(conv4_source(), tmp_path / "file")


def test_a_model_whose_step_sizes_are_all_zero_has_a_loss_and_no_gradients(tmp_path):
    source = Source(**{**vars(conv4_source()), "alpha": np.zeros((3, len(LAYERS)), np.float32)})
    target = export_bundle(source, tmp_path / "bundle")
    model = onnx.load(target / "training.onnx", load_external_data=False)
    assert [output.name for output in model.graph.output] == ["loss", "logits"]
    assert not [name for name in load_file(target / "weights.safetensors") if "::" in name]
    assert set(load_file(target / "selftest.safetensors")) == {"images", "labels", "alpha_mask", "loss"}
