"""Bad input through the command line: one line, the right exit code, nothing written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from .bundles import SAMPLES, rewrite_manifest, support_arrays, write_bundle, write_npz
from .commands import edge_adapt, edge_adapt_here, edge_adapt_json, error_line

Make = Callable[[Path], Path]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("errors") / "bundle")


@pytest.fixture
def own_bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def folders(home: Path, *classes: int, mode: str = "L", size: tuple[int, int] = (12, 12)) -> Path:
    """Write one folder per class with this many images."""
    for index, count in enumerate(classes):
        (home / "photos" / f"class {index}").mkdir(parents=True)
        for number in range(count):
            Image.new(mode, size).save(home / "photos" / f"class {index}" / f"{number}.png")
    return home / "photos"


def spoiled(home: Path, name: str, content: bytes) -> Path:
    """Write good folders and one file that is not."""
    photos = folders(home, 2, 2)
    (photos / name).parent.mkdir(exist_ok=True)
    (photos / name).write_bytes(content)
    return photos


def arrays(home: Path, **changes: object) -> Path:
    images, labels = support_arrays()
    values = {"images": images, "labels": labels, **changes}
    return write_npz(home / "bad.npz", **{name: value for name, value in values.items() if value is not None})


def raw(home: Path, name: str, content: bytes) -> Path:
    (home / name).write_bytes(content)
    return home / name


def with_images(shape: tuple[int, ...], dtype: str = "uint8", value: float = 0) -> Make:
    return lambda home: arrays(home, images=np.full((SAMPLES, *shape), value, dtype))


def with_labels(labels: Any) -> Make:
    return lambda home: arrays(home, labels=labels)


CUT_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
BAD_SUPPORT: dict[str, tuple[Make, str]] = {
    "missing": (lambda home: home / "nowhere", "no such file or folder"),
    "neither folder nor npz": (
        lambda home: raw(home, "a.txt", b""),
        r"expected a folder of images or",
    ),
    "damaged archive": (lambda home: raw(home, "a.npz", b"PK"), r"not an \.npz file that can be read"),
    "no labels": (with_labels(None), "expected an array named 'labels'"),
    "objects": (with_labels(np.array(["a", 1] * 5, object)), "holds Python objects"),
    "wrong size": (with_images((9, 9, 1)), "arrays are never resized"),
    "wrong channels": (with_images((12, 12, 3)), "expected uint8 pixels"),
    "NaN": (with_images((1, 12, 12), "float32", np.nan), "sample 0 holds NaN"),
    "label count": (with_labels(np.arange(3)), "labels: expected one per sample"),
    "label type": (with_labels(np.zeros(SAMPLES)), "expected integers or strings, got float64"),
    "one class in arrays": (with_labels(np.zeros(SAMPLES, int)), "at least 2 classes, got 1"),
    "too many classes": (with_labels(np.arange(SAMPLES)), "10 classes, but the model's head has 5"),
    "one class": (lambda home: folders(home, 3), "at least 2 classes, got 1"),
    "empty class": (lambda home: folders(home, 2, 0), "class 1: the class folder is empty"),
    "no class": (lambda home: folders(home, 1, 1) / "class 0", "expected one sub-folder per class"),
    "unreadable image": (lambda home: spoiled(home, "class 0/x.png", b"not an image"), r"x\.png: "),
    "cut image": (lambda home: spoiled(home, "class 0/x.png", CUT_PNG), r"x\.png: "),
    "loose file": (lambda home: spoiled(home, "x.png", b""), "expected one sub-folder per class"),
    "nested folder": (lambda home: spoiled(home, "class 0/more/x.png", b""), "a folder inside a class"),
    "too many samples": (lambda home: folders(home, 6, 6), "12 samples, but the plan is for at most 10"),
}


@pytest.mark.parametrize("case", BAD_SUPPORT)
def test_bad_support_is_one_line_with_code_5_and_nothing_is_written(
    bundle: Path, tmp_path: Path, case: str
) -> None:
    make, message = BAD_SUPPORT[case]
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    support = make(tmp_path / "data")
    done = edge_adapt_here(
        "run", bundle, "--support", support, "-o", tmp_path / "out" / "adapted", "--json", code=5
    )
    assert re.search(message, error_line(done))
    assert done.stdout == ""
    assert not list((tmp_path / "out").iterdir())


def test_more_samples_run_when_they_are_planned_for(bundle: Path, tmp_path: Path) -> None:
    photos = folders(tmp_path, 6, 6)
    report = edge_adapt_json("run", bundle, "--support", photos, "-o", tmp_path / "adapted", "--samples", 12)
    assert report["support_samples"] == 12


def test_an_image_whose_decoding_exceeds_the_budget_is_refused_before_it_is_decoded(
    bundle: Path, tmp_path: Path
) -> None:
    photos = folders(tmp_path, 2, 2)
    Image.new("L", (4000, 3000)).save(photos / "class 0" / "huge.png")
    arguments = ("run", bundle, "--support", photos, "-o", tmp_path / "adapted", "--memory-budget", "1MB")
    assert re.search(
        r"huge\.png: decoding it takes .* above the limit", error_line(edge_adapt_here(*arguments, code=5))
    )


@pytest.mark.parametrize("option", ["--memory-budget", "--dynamic-budget"])
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_budget_that_cannot_be_met_names_one_that_can(
    bundle: Path, tmp_path: Path, verb: str, option: str
) -> None:
    images, labels = support_arrays()
    support = write_npz(tmp_path / "support.npz", images=images, labels=labels)
    rest = () if verb == "plan" else ("--support", support, "-o", tmp_path / "adapted")
    line = error_line(edge_adapt_here(verb, bundle, *rest, option, "1kB", code=3))
    found = re.search(r"smallest feasible is (\d+) bytes", line)
    assert found
    assert not (tmp_path / "adapted").exists()
    smallest = int(found[1])
    result = edge_adapt_json(verb, bundle, *rest, option, smallest)
    assert result["planned_peak_bytes" if option == "--memory-budget" else "dynamic_bytes"] <= smallest


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan",),
        ("plan", "bundle", "--samples", "0"),
        ("plan", "bundle", "--memory-budget", "8 furlongs"),
        ("plan", "bundle", "--memory-budgte", "8MB"),
        ("run", "bundle"),
        ("run", "bundle", "--support", "x", "-o", "y", "--threads", "none"),
    ],
)
def test_usage_errors_have_code_2(arguments: tuple[str, ...]) -> None:
    done = edge_adapt_here(*arguments, code=2)
    assert done.stdout == ""
    assert "Error: " in done.stderr


def test_an_unknown_engine_has_code_2(bundle: Path, tmp_path: Path) -> None:
    arguments = ("run", bundle, "--support", "x", "-o", tmp_path / "adapted", "--engine", "warp")
    assert "engine 'warp' is not known" in error_line(edge_adapt_here(*arguments, code=2))


def test_an_output_that_is_something_else_has_code_2_and_stays(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("text")
    arguments = ("run", bundle, "--support", "x", "-o", tmp_path / "precious")
    assert "is not an adapted model" in error_line(edge_adapt_here(*arguments, code=2))
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "text"


@pytest.mark.parametrize("verb", ["plan", "run", "inspect", "verify", "predict", "merge"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing file", r"weights\.safetensors: file is missing"),
        ("wrong checksum", r"program\.json: sha256 is "),
        ("unknown format", "bundle format 2 is not known"),
        ("malformed JSON", r"manifest\.json: malformed JSON"),
    ],
)
def test_a_bad_bundle_is_one_line_with_code_4(
    own_bundle: Path, tmp_path: Path, verb: str, fault: str, message: str
) -> None:
    spoil(own_bundle, fault)
    rest: dict[str, tuple[object, ...]] = {
        "run": (own_bundle, "--support", tmp_path, "-o", tmp_path / "new"),
        "predict": (tmp_path, "--bundle", own_bundle, "--input", tmp_path),
        "merge": (tmp_path, "--bundle", own_bundle, "-o", tmp_path / "new"),
    }
    done = edge_adapt_here(verb, *rest.get(verb, (own_bundle,)), code=4)
    assert re.search(message, error_line(done))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def spoil(bundle: Path, fault: str) -> None:
    if fault == "missing file":
        (bundle / "weights.safetensors").unlink()
    if fault == "wrong checksum":
        with (bundle / "program.json").open("a") as file:
            file.write(" ")
    if fault == "unknown format":
        rewrite_manifest(bundle, format=2)
    if fault == "malformed JSON":
        (bundle / "manifest.json").write_text('{"format": 1,')


def test_a_diverging_run_is_one_line_with_code_1_and_keeps_the_last_good_step(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", step_size=1e25)
    images, labels = support_arrays()
    support = write_npz(tmp_path / "support.npz", images=images, labels=labels)
    done = edge_adapt_here("run", bundle, "--support", support, "-o", tmp_path / "adapted", code=1)
    assert re.fullmatch(r"step 2 of 3: .* is not finite; kept the weights after 1 steps.*", error_line(done))
    assert not (tmp_path / "adapted").exists()
    assert [path.name for path in (tmp_path / "adapted.partial").iterdir()] == ["progress.safetensors"]


def test_predict_without_a_model_has_code_4_and_bad_input_code_5(bundle: Path, tmp_path: Path) -> None:
    images, labels = support_arrays()
    support = write_npz(tmp_path / "support.npz", images=images, labels=labels)
    line = error_line(edge_adapt_here("predict", tmp_path, "--bundle", bundle, "--input", support, code=4))
    assert "not an adapted model" in line
    edge_adapt_here("run", bundle, "--support", support, "-o", tmp_path / "adapted")
    arguments = ("predict", tmp_path / "adapted", "--bundle", bundle, "--input", tmp_path / "nowhere")
    assert "no such file or folder" in error_line(edge_adapt_here(*arguments, code=5))
    assert len(images) == SAMPLES


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, ("plan", "{bundle}", "--samples", "none")),
        (3, ("plan", "{bundle}", "--memory-budget", "1kB")),
        (4, ("plan", "{home}")),
        (5, ("run", "{bundle}", "--support", "{home}/nowhere", "-o", "{home}/adapted")),
    ],
)
def test_the_exit_code_reaches_the_shell(
    bundle: Path, tmp_path: Path, code: int, arguments: tuple[str, ...]
) -> None:
    words = [word.format(bundle=bundle, home=tmp_path) for word in arguments]
    assert edge_adapt(*words, code=code).stdout == ""


def test_weights_that_are_no_numbers_have_code_4_and_are_named(own_bundle: Path, tmp_path: Path) -> None:
    weights = load_file(own_bundle / "weights.safetensors")
    name = next(name for name, value in weights.items() if value.ndim == 4)
    weights[name] = weights[name].copy()
    weights[name][0, 0, 0, 0] = np.nan
    save_file(weights, own_bundle / "weights.safetensors")
    rewrite_manifest(own_bundle)
    images, labels = support_arrays()
    support = write_npz(tmp_path / "support.npz", images=images, labels=labels)
    done = edge_adapt_here("run", own_bundle, "--support", support, "-o", tmp_path / "adapted", code=4)
    assert f"weights.safetensors: tensor '{name}' holds NaN or infinity" in error_line(done)
    assert not (tmp_path / "adapted").exists()


def test_a_program_of_another_kind_is_refused_with_its_file(own_bundle: Path) -> None:
    program = json.loads((own_bundle / "program.json").read_text())
    del program["inputs"]["sample_weight"]
    (own_bundle / "program.json").write_text(json.dumps(program))
    rewrite_manifest(own_bundle)
    message = error_line(edge_adapt_here("plan", own_bundle, code=4))
    assert message == f"{own_bundle / 'program.json'}: inputs lack sample_weight; export the bundle again"
