"""Opening a bundle: what is checked, and what each fault says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge import Bundle, BundleError
from edge_adapt.edge.bundle import manifest_from_json, read_bundle
from edge_adapt.edge.bundle.manifest import LAYER_KINDS
from safetensors.numpy import load_file, save_file

from .bundles import NET, SAMPLES, rewrite_manifest, support_arrays, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_a_bundle_opens_with_everything_the_manifest_says(bundle: Path) -> None:
    files = read_bundle(bundle)
    assert (files.manifest.classes, files.manifest.steps, files.manifest.samples) == (
        NET.classes,
        NET.steps,
        SAMPLES,
    )
    assert [layer.name for layer in files.manifest.layers] == ["conv1", "norm1", "conv2", "norm2", "fc"]
    assert files.identity == _sha256(bundle / "manifest.json")


def test_weights_are_the_files_values_mapped_and_copied(bundle: Path) -> None:
    weights, expected = read_bundle(bundle).weights, load_file(bundle / "weights.safetensors")
    assert set(weights.entries) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(weights.mapped(name), value)
        copied = weights.copy(name)
        np.testing.assert_array_equal(copied, value)
        assert copied.flags.writeable
        assert not weights.mapped(name).flags.writeable


def test_a_manifest_reads_back_equal(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert manifest_from_json(manifest.to_json()) == manifest


def test_fields_of_a_later_minor_version_are_ignored(bundle: Path) -> None:
    rewrite_manifest(bundle, remark="written by a later version")
    assert read_bundle(bundle).manifest.name == "tiny-conv"


def test_a_manifest_whose_input_has_no_kind_is_that_of_images(bundle: Path) -> None:
    spec = read_bundle(bundle).manifest.input
    old = {name: value for name, value in spec.to_json().items() if name != "kind"}
    rewrite_manifest(bundle, input=old)
    assert json.loads((bundle / "manifest.json").read_text())["input"] == old
    assert Bundle.open(bundle).adapt(*support_arrays()).bundle.files.manifest.input == spec


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_every_kind_of_layer_is_read(bundle: Path, kind: str) -> None:
    layers = json.loads((bundle / "manifest.json").read_text())["layers"]
    rewrite_manifest(bundle, layers=[{**layer, "kind": kind} for layer in layers])
    assert {layer.kind for layer in read_bundle(bundle).manifest.layers} == {kind}
    layers[1]["kind"] = "lstm"
    rewrite_manifest(bundle, layers=layers)
    with pytest.raises(BundleError, match=r"layers\[1\]: 'kind': expected one of conv, fc, .*, got 'lstm'"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "name", ["program.json", "weights.safetensors", "selftest.safetensors", "manifest.json"]
)
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: file is missing"):
        Bundle.open(bundle)


@pytest.mark.parametrize("name", ["program.json", "weights.safetensors", "selftest.safetensors"])
def test_one_flipped_bit_is_found_by_the_checksum(bundle: Path, name: str) -> None:
    raw = bytearray((bundle / name).read_bytes())
    raw[-2] ^= 1
    (bundle / name).write_bytes(raw)
    with pytest.raises(
        BundleError, match=rf"{name}: sha256 is \w+\.\.\., the manifest says \w+\.\.\..*copy the bundle"
    ):
        Bundle.open(bundle)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_refused(bundle: Path, version: object) -> None:
    rewrite_manifest(bundle, format=version)
    with pytest.raises(BundleError, match=r"bundle format .* is not known, expected 1; update edge-adapt"):
        Bundle.open(bundle)


@pytest.mark.parametrize("text", ["", "{", '{"format": 1', "[1]", '{"a": 1, "a": 2}', "[" * 100000, "\xff"])
def test_a_malformed_manifest_is_one_clear_error(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"manifest\.json: ") as caught:
        Bundle.open(bundle)
    assert "\n" not in str(caught.value)


def test_a_malformed_program_is_one_clear_error(bundle: Path) -> None:
    (bundle / "program.json").write_text('{"format": 1, "tensors": 3}')
    rewrite_manifest(bundle)
    with pytest.raises(BundleError, match=r"program\.json: malformed"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "magic", "'kind': expected one of gradient, .*, got 'magic'"),
        ("loss", None, "'loss': expected one of"),
        ("classes", 0, "'classes': expected an integer of at least 1, got 0"),
        ("classes", True, "'classes': expected an integer"),
        ("classes", 7, "7 classes, but program.json has logits"),
        ("steps", 4, "4 steps, but program.json has 3"),
        ("samples", "25", "'samples': expected an integer"),
        ("samples", 10**9, "'samples': expected .* at most 10000000, got 1000000000"),
        ("input", {"channels": 1}, "fields missing or unknown"),
        ("layers", [], r"layers \[\], but program.json has"),
        ("layers", [3], r"layers\[0\]: 'name' is missing"),
        ("files", {}, "program.json, weights.safetensors not listed"),
        ("files", {"../secret": "0" * 64}, "'../secret' is not a path inside the bundle"),
        ("files", {"/etc/passwd": "0" * 64}, "is not a path inside the bundle"),
        ("files", {"program.json": "abc"}, "expected a sha256 of 64 digits"),
        ("provenance", [], "'provenance': expected an object"),
    ],
)
def test_a_wrong_manifest_field_is_named(bundle: Path, field: str, value: object, message: str) -> None:
    rewrite_manifest(bundle, **{field: value})
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle)


@pytest.mark.parametrize("field", ["kind", "name", "input", "classes", "layers", "files", "provenance"])
def test_a_missing_manifest_field_is_named(bundle: Path, field: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest[field]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=f"'{field}' is missing"):
        Bundle.open(bundle)


def test_caps_and_benefits_have_one_number_per_step(bundle: Path) -> None:
    layers = json.loads((bundle / "manifest.json").read_text())["layers"]
    layers[0]["cap"], layers[0]["benefit"] = [2, 3, 4], [0.5, 0.25, 0]
    rewrite_manifest(bundle, layers=layers)
    layer = read_bundle(bundle).manifest.layers[0]
    assert (layer.cap, layer.benefit) == ((2, 3, 4), (0.5, 0.25, 0))
    layers[0]["cap"] = [2, 3]
    rewrite_manifest(bundle, layers=layers)
    with pytest.raises(BundleError, match=r"layers\[0\]: 'cap': expected null or 3 numbers, one per step"):
        read_bundle(bundle)


@pytest.mark.parametrize("fault", ["missing", "shape", "dtype"])
def test_a_tensor_that_does_not_fit_the_program_is_named(bundle: Path, fault: str) -> None:
    tensors = load_file(bundle / "weights.safetensors")
    value = tensors.pop("conv1.weight")
    changed = {"missing": None, "shape": value.reshape(8, 9), "dtype": value.astype(np.float64)}[fault]
    if changed is not None:
        tensors["conv1.weight"] = changed
    save_file(tensors, bundle / "weights.safetensors")
    rewrite_manifest(bundle)
    expected = "is missing" if fault == "missing" else r"expected float32 \[8, 1, 3, 3\], got float"
    with pytest.raises(BundleError, match=rf"tensor 'conv1\.weight'.*{expected}"):
        Bundle.open(bundle)


def test_a_path_that_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such directory; expected a bundle"):
        Bundle.open(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"manifest\.json: file is missing"):
        Bundle.open(tmp_path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
