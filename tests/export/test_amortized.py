"""Bundles that adapt by forward passes: both engines against plain torch, and the merged model in onnxruntime."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from edge_adapt.edge import Bundle
from edge_adapt.edge.bundle import TensorFile, merge
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.errors import UsageError
from edge_adapt.edge.inputs import ArraySpec, InputSpec
from edge_adapt.edge.plan.space import micro_batches
from edge_adapt.edge.stream.beside import Reading
from edge_adapt.edge.stream.passes import Passes
from edge_adapt.edge.stream.search import Family
from edge_adapt.edge.stream.selftest import entry_indices
from edge_adapt.edge.verify import verify
from edge_adapt.export import ExportError, export_bundle, export_prototypes
from edge_adapt.export.amortized import (
    AmortizedSource,
    captured,
    source_of_extractor,
    source_of_modules,
)
from edge_adapt.export.amortized_bundle import write_amortized
from edge_adapt.export.capture import to_onnx
from numpy.typing import NDArray
from torch import nn

from .learners import CLASSES, KINDS, SPEC, Learner, extractor, learner, truth, write

ENGINES = ("native", "reference")
WAYS = [
    (kind, film, covariance) for kind in KINDS for film, covariance in ((True, "class"), (False, "class"))
]
WAYS = [*WAYS[1:], ("simple-cnaps", True, "identity")]  # prototypes have no films
ways = pytest.mark.parametrize(("kind", "film", "covariance"), WAYS)


def samples(count: int, seed: int = 0, spec: InputSpec = SPEC) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *spec.pixel_shape), np.uint8)


def uneven(count: int = 13) -> NDArray[np.int64]:
    """Labels of four classes, the last with a single sample."""
    labels = np.arange(count) % 3
    labels[5] = 3
    return labels


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """The bundle of a kind, with or without films, with a covariance; written once."""
    home = tmp_path_factory.mktemp("bundles")

    def opened(kind: str, film: bool = True, covariance: str = "class") -> Bundle:
        path = home / f"{kind}-{film and kind != 'prototypes'}-{covariance}"
        if not path.exists():
            write(path, kind, learner(kind, film=film), covariance=covariance)
        return Bundle.open(path)

    return opened


Bundles = Callable[..., Bundle]


@ways
def test_heads_films_and_logits_are_torchs(kind: str, film: bool, covariance: str, bundles: Bundles) -> None:
    made, bundle = learner(kind, film=film), bundles(kind, film, covariance)
    support, queries, labels = samples(13), samples(9, seed=1), uneven()
    inputs, other = (torch.from_numpy(SPEC.preprocess(part)) for part in (support, queries))
    right = truth(kind, made, inputs.double(), torch.from_numpy(labels), other.double(), covariance)
    single = truth(kind, made, inputs, torch.from_numpy(labels), other, covariance)
    expected = torch.softmax(right.logits, 1).numpy()
    for engine in ENGINES:
        model = bundle.adapt(support, labels, engine=engine)
        written = {name: value.astype(np.float64) for name, value in model.adapted.tensors.items()}
        head = bundle.files.program.layers[-1]
        films = [written[name] for layer in bundle.files.program.layers[:-1] for name in layer.params]
        if films:
            assert np.allclose(np.concatenate(films), right.films.numpy(), rtol=0, atol=1e-5)
        if head.kind == "mahalanobis":
            means, factors = (written[name][:4] for name in head.params)
            assert np.allclose(means, right.means.numpy(), rtol=0, atol=1e-5)
            identity = factors @ right.covariances.numpy() @ factors.transpose(0, 2, 1)
            assert np.allclose(identity, np.eye(12), rtol=0, atol=1e-4)
        assert np.allclose(model.predict(queries), expected, rtol=0, atol=1e-4)
        if kind != "cnaps" and head.kind == "fc":
            continue  # up to what all classes share
        logits = model.logits(queries)[:, :4]
        scale = max(1.0, float(right.logits.abs().max()))
        assert np.abs(logits - right.logits.numpy()).max() <= 2e-5 * scale
        assert np.abs(logits - single.logits.numpy()).max() <= 4e-5 * scale


@ways
def test_micro_batches_tilings_and_engines_agree(
    kind: str, film: bool, covariance: str, tmp_path: Path
) -> None:
    bundle = Bundle.open(write(tmp_path / "bundle", kind, learner(kind, film=film), covariance=covariance))
    support, labels, found = samples(13), uneven(), []
    assert bundle.files.streams is not None
    head = bundle.files.streams.head.params
    for engine in ENGINES:
        target = bundle.plan(engine=engine).engine
        runner = bundle._engine(engine, 1)
        passes = Passes(bundle.files.streams, runner.target)  # type: ignore[attr-defined]
        assert target == engine
        for tiling in ("maps", "norms", "convs", "lean"):
            for size in micro_batches(13):
                plan = Family(passes, Reading(13, 4, 1000, 0.0), tiling).plan(size)
                assert plan.micro_batch == size
                tensors = bundle.adapt(support, labels, plan=plan).adapted.tensors
                found.append({name: tensors[name][:4] if name in head else tensors[name] for name in tensors})
    assert len(found) > 40
    for name, first in found[0].items():
        scale = max(1.0, float(np.abs(first).max()))
        assert all(np.abs(one[name] - first).max() <= 1e-5 * scale for one in found)


@ways
def test_the_merged_model_gives_the_same_logits(
    kind: str, film: bool, covariance: str, tmp_path: Path
) -> None:
    bundle = Bundle.open(write(tmp_path / "bundle", kind, learner(kind, film=film), covariance=covariance))
    model = bundle.adapt(samples(13), uneven())
    model.save(tmp_path / "adapted")
    merge(bundle.files, bundle.load(tmp_path / "adapted").adapted, tmp_path / "merged")
    queries = samples(7, seed=3)
    session = onnxruntime.InferenceSession(str(tmp_path / "merged" / "model.onnx"))
    (found,) = session.run(["logits"], {"images": SPEC.preprocess(queries)})
    expected = model.logits(queries)[:, :4]
    assert np.abs(found[:, :4] - expected).max() <= 1e-5 * max(1.0, float(np.abs(expected).max()))
    again = bundle.load(tmp_path / "adapted", engine="onnxruntime").logits(queries)[:, :4]
    assert np.abs(again - expected).max() <= 1e-5 * max(1.0, float(np.abs(expected).max()))


@ways
def test_the_merged_model_answers_with_a_class_in_use(
    kind: str, film: bool, covariance: str, bundles: Bundles, tmp_path: Path
) -> None:
    """Nothing masks the outputs without a class in an ordinary ONNX model: they have to lose by themselves."""
    bundle, labels, queries = bundles(kind, film, covariance), uneven(), samples(40, seed=3)
    model = bundle.adapt(samples(13), labels)
    merge(bundle.files, model.adapted, tmp_path / "merged")
    session = onnxruntime.InferenceSession(str(tmp_path / "merged" / "model.onnx"))
    (logits,) = session.run(["logits"], {"images": SPEC.preprocess(queries)})
    assert logits.shape == (40, CLASSES)
    assert np.isfinite(logits).all()
    assert np.array_equal(logits.argmax(1), model.predict(queries).argmax(1))
    shares = np.exp(logits - logits.max(1, keepdims=True))
    assert not (shares[:, 4:] > 0).any()


def test_entries_of_the_self_test_lie_in_many_columns(tmp_path: Path) -> None:
    made = learner("simple-cnaps", film=False, widths=(8, 64))
    bundle = Bundle.open(write(tmp_path / "bundle", "simple-cnaps", made, classes=20))
    entries = TensorFile.open(bundle.files.file("selftest.safetensors")).copy("entries::head.factors")
    indices = entry_indices(64, 3 * 64 * 64)
    assert len(set(indices % 64)) == len(set(indices)) == len(entries) == 64
    assert np.array_equal(entry_indices(64, 100), np.arange(64) * 100 // 64)
    labels = TensorFile.open(bundle.files.file("selftest.safetensors")).copy("labels")
    images = TensorFile.open(bundle.files.file("selftest.safetensors")).copy("images")
    factors = bundle.adapt(images, labels).adapted.tensors["head.factors"][:3]
    assert np.allclose(factors.reshape(-1)[indices], entries, rtol=0, atol=1e-5)
    assert np.abs(entries).max() > 0


@pytest.mark.parametrize("seed", range(3))
def test_random_shapes_agree_with_torch(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    kind, classes = KINDS[seed % 3], int(rng.integers(3, 9))
    colours, side = int(rng.choice([1, 3])), int(rng.integers(9, 24))
    widths = tuple(int(width) for width in rng.integers(3, 40, rng.integers(1, 4)))
    spec = InputSpec(colours, side, side + 3, (0.4,) * colours, (0.2,) * colours)
    made = learner(kind, seed, widths=widths, colours=colours)
    bundle = Bundle.open(write(tmp_path / "bundle", kind, made, spec, classes))
    count = int(rng.integers(classes + 2, 30))
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, count - classes)])
    support, queries = samples(count, seed, spec), samples(5, seed + 50, spec)
    inputs, other = (torch.from_numpy(spec.preprocess(part)).double() for part in (support, queries))
    right = truth(kind, made, inputs, torch.from_numpy(labels), other, "class")
    for engine in ENGINES:
        found = bundle.adapt(support, labels, engine=engine).predict(queries)
        assert np.allclose(found, torch.softmax(right.logits, 1).numpy(), rtol=0, atol=2e-4)
        assert verify(bundle.files, bundle._engine(engine, 1))["passed"]


def test_the_self_test_notices_another_network(bundles: Bundles, tmp_path: Path) -> None:
    path = shutil.copytree(bundles("simple-cnaps").files.path, tmp_path / "bundle")
    files, weights = Bundle.open(path).files, path / "weights.safetensors"
    with weights.open("r+b") as file:  # after it was checked
        file.seek(files.weights.entries["encoder::0.bias"].offset)
        file.write(np.float32(3).tobytes())
    result = verify(files, ReferenceEngine())
    assert not result["passed"]
    assert not all(check["passed"] for check in result["checks"] if "film" in check["name"])


def test_a_bundle_holds_what_its_kind_needs_and_nothing_that_trains(bundles: Bundles) -> None:
    common = {"manifest.json", "program.json", "weights.safetensors", "selftest.safetensors", "eval.onnx"}
    more = {"prototypes": set(), "cnaps": {"encoder", "film", "head"}, "simple-cnaps": {"encoder", "film"}}
    for kind, parts in more.items():
        path = bundles(kind).files.path
        assert {file.name for file in path.iterdir()} == common | {f"{part}.json" for part in parts}
        manifest = json.loads((path / "manifest.json").read_text())
        assert (manifest["kind"], manifest["steps"], manifest["classes"]) == (kind, 1, CLASSES)
        assert manifest["layers"][-1]["name"] == "head"
        program = json.loads((path / "program.json").read_text())
        assert set(program["sections"]) == {"forward"}
        kinds = [op["op"] for op in program["sections"]["forward"]]
        assert kinds.count("Affine") == (0 if kind == "prototypes" else 2)  # BatchNorm is in the convolutions


def test_a_classifier_becomes_prototypes_of_its_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    features = extractor((6, 10), film=False)
    classifier = nn.Sequential(features, nn.Linear(10, 30)).eval()
    images = torch.from_numpy(SPEC.preprocess(samples(4)))
    made = {
        "module": export_prototypes(
            classifier, tmp_path / "a", classes=5, example_input=images, cut_classifier=True, input=SPEC
        ),
        "features": export_prototypes(features, tmp_path / "b", classes=5, example_input=images, input=SPEC),
    }
    onnx_file = tmp_path / "model.onnx"
    onnx.save(to_onnx(classifier, (1, 14, 14)), onnx_file)
    made["file"] = export_prototypes(onnx_file, tmp_path / "c", classes=5, cut_classifier=True, input=SPEC)
    support, labels, queries = samples(8), np.arange(8) % 3, samples(5, seed=2)
    right = truth(
        "prototypes",
        Learner(features),
        torch.from_numpy(SPEC.preprocess(support)).double(),
        torch.from_numpy(labels),
        torch.from_numpy(SPEC.preprocess(queries)).double(),
        "class",
    )
    for path in made.values():
        bundle = Bundle.open(path)
        found = bundle.adapt(support, labels).predict(queries)
        assert np.allclose(found, torch.softmax(right.logits, 1).numpy(), rtol=0, atol=1e-4)
        assert verify(bundle.files, bundle._engine("native", 1))["passed"]


def test_an_extractor_of_arrays_whose_last_layer_is_called_head(tmp_path: Path) -> None:
    module = nn.Sequential()
    module.add_module("body", nn.Linear(7, 9))
    module.add_module("act", nn.ReLU())
    module.add_module("head", nn.Linear(9, 4))
    rows = np.random.default_rng(0).normal(size=(12, 7)).astype(np.float32)
    bundle = Bundle.open(export_prototypes(module, tmp_path / "b", classes=3, example_input=rows))
    assert bundle.files.program.layers[-1].params == ("head2.weight", "head2.bias")
    labels = np.arange(12) % 3
    means = [module(torch.from_numpy(rows))[labels == c].mean(0).detach().numpy() for c in range(3)]
    model = bundle.adapt(rows, labels)
    away = np.array(means) - np.mean(means, 0)
    assert np.allclose(model.adapted.tensors["head2.weight"], 2 * away, atol=1e-5)


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    out, rows, flat = tmp_path / "bundle", torch.zeros(1, 1, 14, 14), extractor((6,), film=False)
    right: AmortizedSource = source_of_modules("cnaps", learner("cnaps"), SPEC, 5, name="x")
    wide = captured(nn.Linear(5, 11), (5,))

    def refused(error: type[Exception], message: str, run: Callable[[], object]) -> None:
        with pytest.raises(error, match=message):
            run()

    def written(**changes: Any) -> Callable[[], object]:
        return lambda: write_amortized(replace(right, **changes), out)

    refused(ExportError, "5 numbers into 11, expected 5 numbers into 40", written(generator=wide))
    refused(ExportError, "film '0.norm': expected a module with", written(films=("0.norm",)))
    refused(ExportError, r"programs .*'encoder', 'film', 'head'", written(kind="simple-cnaps"))
    refused(ExportError, "classes: expected an integer of at least 2", written(classes=1))
    refused(ExportError, "kind: expected one of", written(kind="maml"))
    refused(ExportError, "covariance: expected one of", written(covariance="shared"))
    maps = nn.Conv2d(1, 3, 3)
    refused(
        ExportError,
        "one vector of features",
        lambda: export_prototypes(maps, out, classes=3, example_input=rows),
    )
    refused(ExportError, "the model ends in", lambda: source_of_extractor(flat, 3, rows, cut_classifier=True))
    alone = nn.Linear(7, 4)
    refused(
        ExportError,
        "is all there is, nothing makes features before it",
        lambda: source_of_extractor(alone, 3, torch.zeros(1, 7), cut_classifier=True),
    )
    refused(
        ExportError,
        "no parameters; export one that computes something learned",
        lambda: source_of_extractor(nn.Flatten(), 3, rows),
    )
    refused(ExportError, "needs example_input", lambda: export_prototypes(flat, out, classes=3))
    refused(
        ExportError, "input: its shape is", lambda: source_of_extractor(flat, 3, rows, input=ArraySpec((3,)))
    )
    refused(UsageError, "leave --ort-training away", lambda: export_bundle(right, out, ort_training=True))
    refused(
        UsageError, "see export_prototypes", lambda: export_bundle(flat, out, example_input=rows, classes=4)
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    refused(UsageError, "is not a bundle", lambda: write_amortized(right, tmp_path / "mine"))
    assert not out.exists()
