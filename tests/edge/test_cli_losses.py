"""`edge-adapt` with bundles whose input is no image or whose loss is not cross-entropy."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge import BudgetError, Bundle
from edge_adapt.edge.bundle import read_bundle
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.inputs import ArraySpec
from edge_adapt.edge.verify import verify
from PIL import Image
from safetensors.numpy import load_file, save_file

from .bundles import rewrite_manifest, write_npz
from .commands import edge_adapt_here, edge_adapt_json, error_line
from .dense import SAMPLES, TASKS, Task, answers, samples, write_dense_bundle

Change = Callable[[dict[str, Any]], dict[str, Any]]
TASK = TASKS["numbers"]


def support_file(path: Path, name: str, **changes: Any) -> Path:
    """Write a good support set of a task, with some arrays changed (None: left out)."""
    arrays = {"inputs": samples(TASKS[name]), **answers(TASKS[name]), **changes}
    return write_npz(path, **{key: value for key, value in arrays.items() if value is not None})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For every task a bundle, a support set and a model adapted to it."""
    home = tmp_path_factory.mktemp("losses")
    for name, task in TASKS.items():
        write_dense_bundle(home / name / "bundle", task)
        support_file(home / name / "support.npz", name)
        edge_adapt_here(
            "run",
            home / name / "bundle",
            "--support",
            home / name / "support.npz",
            "-o",
            home / name / "adapted",
        )
    return home


@pytest.mark.parametrize("name", TASKS)
def test_a_run_reports_the_loss_that_the_manifest_names(home: Path, name: str) -> None:
    task, report = TASKS[name], json.loads((home / name / "adapted" / "report.json").read_text())
    model = Bundle.open(home / name / "bundle").adapt(samples(task), **answers(task))
    assert report["loss"] == pytest.approx(model.report["loss"], rel=1e-5)
    assert report["loss"] < report["losses"][0]
    assert (report["support_accuracy"] is None) == (task.loss != "softmax-cross-entropy")
    assert report["support_samples"] == SAMPLES
    assert report["classes"] == list(model.class_names)
    assert json.loads((home / name / "adapted" / "classes.json").read_text()) == report["classes"]


@pytest.mark.parametrize("name", TASKS)
def test_the_promise_is_kept_for_arrays_and_all_losses(home: Path, tmp_path: Path, name: str) -> None:
    words = (
        "run",
        home / name / "bundle",
        "--support",
        home / name / "support.npz",
        "-o",
        tmp_path / "adapted",
    )
    report = edge_adapt_json(*words)
    planned = edge_adapt_json("plan", home / name / "bundle")
    assert report["kept"] is True
    assert {key: report[key] for key in planned} == planned | {"steps": report["steps"]}
    assert 0 < report["measured_dynamic_bytes"] <= report["dynamic_bytes"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are measured on Linux only")
def test_the_outputs_of_many_large_samples_are_never_held_at_once(tmp_path: Path) -> None:
    task = Task("mean-squared-error", ArraySpec((64, 64)), (3, 64, 64))
    bundle = write_dense_bundle(tmp_path / "bundle", task, step_size=0.001)
    support = write_npz(tmp_path / "support.npz", inputs=samples(task, 100), **answers(task, 100))
    with pytest.raises(BudgetError) as caught:
        Bundle.open(bundle).plan(memory_budget=1, samples=100, steps=1)
    assert caught.value.smallest_bytes is not None
    tight = caught.value.smallest_bytes + 1000  # the step table of another process may be a little larger
    words = ("run", bundle, "--support", support, "-o", tmp_path / "adapted", "--samples", 100, "--steps", 1)
    report = edge_adapt_json(*words, "--memory-budget", tight)
    outputs_bytes = 100 * 4 * 3 * 64 * 64
    assert report["kept"] is True
    assert report["measured_peak_bytes"] < report["planned_peak_bytes"] + outputs_bytes / 2


@pytest.mark.parametrize("name", TASKS)
def test_predict_prints_outputs_where_there_are_no_classes(home: Path, name: str) -> None:
    task, path = TASKS[name], home / name
    words = ("predict", path / "adapted", "--bundle", path / "bundle", "--input", path / "support.npz")
    result = json.loads(edge_adapt_here(*words, "--json").stdout)
    model = Bundle.open(path / "bundle").load(path / "adapted")
    text = edge_adapt_here(*words).stdout
    if task.loss == "softmax-cross-entropy":
        assert result["accuracy"] == model.report["support_accuracy"]
        assert set(result["predictions"][0]) == {"file", "class", "confidence", "label"}
        assert "confidence" in text
        return
    outputs = np.array([row["outputs"] for row in result["predictions"]])
    assert outputs.shape == (SAMPLES, *task.outputs)
    for values in (model.predict(samples(task)), model.logits(samples(task))):
        np.testing.assert_allclose(outputs, values, rtol=1e-5, atol=1e-6)
    assert result["accuracy"] is None
    assert [row["file"] for row in result["predictions"]] == [str(index) for index in range(SAMPLES)]
    lines = text.splitlines()
    assert lines[0].split() == ["file", "outputs"]
    np.testing.assert_allclose([float(word) for word in lines[3].split()[1:]], outputs[2].ravel(), rtol=1e-3)


def test_the_unadapted_model_gives_outputs_too(home: Path) -> None:
    bundle = Bundle.open(home / "numbers" / "bundle")
    assert bundle.predict(samples(TASK)).shape == (SAMPLES, 2)
    assert bundle.adapt(samples(TASK), **answers(TASK)).predict(samples(TASK)).dtype == np.float64


@pytest.mark.parametrize("name", TASKS)
def test_inspect_shows_input_loss_and_outputs(home: Path, name: str) -> None:
    task = TASKS[name]
    value = edge_adapt_json("inspect", home / name / "bundle")
    assert (value["loss"], value["input"]) == (task.loss, task.spec.to_json())
    text = edge_adapt_here("inspect", home / name / "bundle").stdout
    parts = " and ".join(answers(task))
    assert re.search(rf"^loss +{task.loss}, from images and {parts}$", text, re.MULTILINE)
    shape = "x".join(map(str, task.spec.shape))
    assert re.search(rf"^input +array {shape}, mean \[.*\], std \[.*\]$", text, re.MULTILINE)
    outputs = "up to 4 classes" if name == "classes" else "x".join(map(str, task.outputs))
    assert re.search(rf"^outputs +{outputs}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", TASKS)
def test_the_self_test_passes_and_finds_an_altered_answer(home: Path, tmp_path: Path, name: str) -> None:
    assert json.loads(edge_adapt_here("verify", home / name / "bundle", "--json").stdout)["passed"]
    path = write_dense_bundle(tmp_path / "bundle", TASKS[name])
    test = load_file(path / "selftest.safetensors")
    part = next(iter(answers(TASKS[name])))
    save_file({**test, part: np.roll(test[part], 1, axis=0)}, path / "selftest.safetensors")
    rewrite_manifest(path)
    assert not verify(read_bundle(path), ReferenceEngine())["passed"]


@pytest.mark.parametrize("part", ["images", "targets"])
def test_a_self_test_of_another_shape_or_type_is_refused(tmp_path: Path, part: str) -> None:
    path = write_dense_bundle(tmp_path / "bundle", TASK)
    test = load_file(path / "selftest.safetensors")
    for bad in (test[part][:, :1].copy(), test[part].astype(np.float64)):
        save_file({**test, part: bad}, path / "selftest.safetensors")
        rewrite_manifest(path)
        assert "do not fit the input" in error_line(edge_adapt_here("verify", path, code=4))


def test_a_continued_run_of_a_regression_is_one_with_the_same_targets(home: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(home / "numbers" / "bundle")

    def stop(progress: Any) -> None:
        if progress.step == 1:
            raise KeyboardInterrupt

    def run(source: Path, **options: Any) -> list[str]:
        notes: list[str] = []
        bundle.run(source, tmp_path / "adapted", bundle.request(), notify=notes.append, **options)
        return notes

    other = support_file(tmp_path / "other.npz", "numbers", targets=answers(TASK)["targets"] + 1)
    good = home / "numbers" / "support.npz"
    for source, note in (
        (good, "continuing after step 1 of 3"),
        (other, "was made with another support set"),
    ):
        with pytest.raises(KeyboardInterrupt):
            run(good, progress=stop)
        assert note in run(source)[0]


def test_adapt_takes_exactly_the_arrays_of_the_loss(home: Path) -> None:
    bundle = Bundle.open(home / "numbers" / "bundle")
    values = samples(TASK)
    for given in ({}, {"labels": [0, 1] * 5}, {**answers(TASK), "advantages": values[:, 0]}):
        with pytest.raises(
            Exception, match="mean-squared-error takes images and targets, got images"
        ) as caught:
            bundle.adapt(values, **given)
        assert getattr(caught.value, "exit_code", None) == 2


def test_classes_of_a_model_without_classes_are_refused(home: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(home / "numbers" / "bundle")
    bundle.adapt(samples(TASK), **answers(TASK)).save(tmp_path / "adapted")
    (tmp_path / "adapted" / "classes.json").write_text('["cat"]')
    with pytest.raises(Exception, match="expected 0 class names, got 1"):
        bundle.load(tmp_path / "adapted")


VALUES = samples(TASK)
BAD = {
    "wrong key": ({"targets": None, "target": VALUES}, "expected an array named 'targets', found inputs, target"),
    "labels instead": ({"targets": None, "labels": np.arange(10)}, "expected an array named 'targets'"),
    "no samples": ({"inputs": None}, "expected one array named 'images' or 'inputs', found targets"),
    "wrong rank": ({"inputs": VALUES[..., None]}, r"inputs: .* values \(n, 5\), got float32 \(10, 5, 1\)"),
    "wrong dtype": ({"inputs": VALUES.astype(float)}, r"inputs: .* got float64 \(10, 5\); save them as float32"),
    "integer observations": ({"inputs": VALUES.astype(int)}, r"inputs: .* got int64 \(10, 5\); save them as float32"),
    "NaN": ({"inputs": np.full_like(VALUES, np.nan)}, "inputs: sample 0 holds NaN or infinity"),
    "targets of another length": ({"targets": np.zeros((9, 2), np.float32)}, r"targets: .* got float32 \(9, 2\)"),
    "targets of another shape": ({"targets": np.zeros((10, 3), np.float32)}, r"targets: .* got float32 \(10, 3\)"),
    "NaN in targets": ({"targets": np.full((10, 2), np.nan, np.float32)}, "targets: sample 0 holds NaN"),
    "integer targets": ({"targets": np.zeros((10, 2), int)}, "targets: expected float32 numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_support_is_one_line_with_code_5_and_nothing_is_written(
    home: Path, tmp_path: Path, case: str
) -> None:
    changes, message = BAD[case]
    source = support_file(tmp_path / "bad.npz", "numbers", **changes)
    words = ("run", home / "numbers" / "bundle", "--support", source, "-o", tmp_path / "adapted", "--json")
    done = edge_adapt_here(*words, code=5)
    assert re.search(message, error_line(done))
    assert done.stdout == ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.npz"]


@pytest.mark.parametrize("name", ["classes", "numbers", "choices"])
def test_a_folder_for_an_array_model_is_one_line_with_code_5(home: Path, tmp_path: Path, name: str) -> None:
    for group in "ab":
        (tmp_path / "photos" / group).mkdir(parents=True)
        Image.new("L", (12, 12)).save(tmp_path / "photos" / group / "0.png")
    words = ("run", home / name / "bundle", "--support", tmp_path / "photos", "-o", tmp_path / "adapted")
    assert re.search(r"photos: a folder .*; give an \.npz", error_line(edge_adapt_here(*words, code=5)))
    words = (
        "predict",
        home / name / "adapted",
        "--bundle",
        home / name / "bundle",
        "--input",
        tmp_path / "photos",
    )
    assert re.search(r"photos: a folder of images, but", error_line(edge_adapt_here(*words, code=5)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]
