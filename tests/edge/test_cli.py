"""Every verb of `edge-adapt` on good input: what it prints, writes and measures."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge import Bundle
from edge_adapt.edge.cli.progress import ProgressBar
from edge_adapt.edge.engines import default_engine, installed_engines
from edge_adapt.edge.native import available, best, built
from PIL import Image
from safetensors.numpy import load_file

from .bundles import NET, SAMPLES, support_arrays, write_bundle, write_npz
from .commands import edge_adapt, edge_adapt_json

VERBS = ["plan", "run", "predict", "inspect", "verify", "merge", "bench", "doctor"]
PLAN_KEYS = {
    "planned_peak_bytes", "static_bytes", "dynamic_bytes", "terms", "samples", "micro_batch", "schedule",
    "storage", "layers", "macs", "engine", "threads", "saved_bits", "cache_bits", "recompute", "tiling", "freezing",
}  # fmt: skip
RUN_KEYS = PLAN_KEYS | {
    "baseline_bytes", "measured_peak_bytes", "measured_dynamic_bytes", "process_peak_bytes", "seconds",
    "steps", "support_accuracy", "loss", "kept", "engine", "bundle",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, a support set as .npz and as folders, and a model adapted to it."""
    home = tmp_path_factory.mktemp("cli")
    write_bundle(home / "bundle")
    images, labels = support_arrays()
    write_npz(home / "support.npz", images=images, labels=labels)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (home / "photos" / f"class {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(home / "photos" / f"class {label}" / f"{index}.png")
    edge_adapt("run", home / "bundle", "--support", home / "support.npz", "-o", home / "adapted")
    return home


@pytest.mark.parametrize("verb", VERBS)
def test_help_ends_with_an_example_of_the_verb(verb: str) -> None:
    text = edge_adapt(verb, "--help").stdout
    assert f"Example:\n    edge-adapt {verb}" in text


def test_the_group_lists_every_verb_and_the_exit_codes() -> None:
    text = edge_adapt("--help").stdout
    assert all(f"\n  {verb}  " in text for verb in VERBS)
    assert "3 budget cannot be met" in " ".join(text.split())
    assert edge_adapt("--version").stdout.startswith("edge-adapt, version ")


def test_plan_prints_the_terms_that_sum_to_the_peak(home: Path) -> None:
    plan = edge_adapt_json("plan", home / "bundle", "--samples", 7, "--steps", 2)
    assert set(plan) >= PLAN_KEYS
    assert sum(plan["terms"].values()) == plan["planned_peak_bytes"]
    assert (plan["samples"], len(plan["layers"])) == (7, 2)
    text = edge_adapt("plan", home / "bundle").stdout
    assert "planned peak" in text
    assert "conv1 norm1 conv2 norm2 fc" in text


def test_plan_draws_the_arena(home: Path, tmp_path: Path) -> None:
    done = edge_adapt("plan", home / "bundle", "--json", "--plot", tmp_path / "arena.png")
    assert json.loads(done.stdout)["dynamic_bytes"] > 0
    with Image.open(tmp_path / "arena.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    assert len(colours) > 5  # axes, text and several terms


def test_run_reports_everything_and_keeps_the_promise(home: Path, tmp_path: Path) -> None:
    budget = 400_000
    report = edge_adapt_json(
        "run",
        home / "bundle",
        "--support",
        home / "photos",
        "-o",
        tmp_path / "adapted",
        "--memory-budget",
        budget,
    )
    assert set(report) >= RUN_KEYS
    assert report["planned_peak_bytes"] <= budget
    assert report["steps"] == NET.steps
    assert report["classes"] == [f"class {label}" for label in range(NET.classes)]
    assert report["kept"] is True
    assert report["measured_peak_bytes"] <= report["planned_peak_bytes"] + 2 * 2**20
    assert 0 < report["measured_dynamic_bytes"] <= report["dynamic_bytes"]
    assert report["process_peak_bytes"] - report["baseline_bytes"] == report["measured_peak_bytes"]
    assert json.loads((tmp_path / "adapted" / "report.json").read_text()) == report


def test_run_prints_a_table_for_people(home: Path, tmp_path: Path) -> None:
    done = edge_adapt("run", home / "bundle", "--support", home / "support.npz", "-o", tmp_path / "adapted")
    assert "planned_peak_bytes" in done.stdout
    assert done.stderr == ""


def test_folders_and_archives_of_the_same_pixels_adapt_to_the_same_weights(
    home: Path, tmp_path: Path
) -> None:
    images, labels = support_arrays()
    order = np.argsort(labels, kind="stable")
    write_npz(tmp_path / "sorted.npz", images=images[order], labels=labels[order])
    for name, source in (("one", home / "photos"), ("other", tmp_path / "sorted.npz")):
        edge_adapt("run", home / "bundle", "--support", source, "-o", tmp_path / name)
    one, other = (load_file(tmp_path / name / "delta.safetensors") for name in ("one", "other"))
    assert {name: value.tobytes() for name, value in one.items()} == {
        name: value.tobytes() for name, value in other.items()
    }


def test_predict_names_class_and_confidence_of_every_file(home: Path) -> None:
    result = edge_adapt_json(
        "predict", home / "adapted", "--bundle", home / "bundle", "--input", home / "support.npz"
    )
    model = Bundle.open(home / "bundle").load(home / "adapted")
    images, labels = support_arrays()
    chances = model.predict(images)
    assert [row["class"] for row in result["predictions"]] == [str(index) for index in chances.argmax(axis=1)]
    assert [row["confidence"] for row in result["predictions"]] == pytest.approx(
        chances.max(axis=1), rel=1e-6
    )
    assert result["accuracy"] == (chances.argmax(axis=1) == labels).mean() == model.report["support_accuracy"]
    assert 0 < result["dynamic_bytes"] < result["measured_peak_bytes"] < 2 * 2**20


def test_predict_takes_a_folder_without_labels(home: Path) -> None:
    source = home / "photos" / "class 1"
    arguments = ("predict", home / "adapted", "--bundle", home / "bundle", "--input", source)
    result = edge_adapt_json(*arguments)
    assert [row["file"] for row in result["predictions"]] == sorted(path.name for path in source.iterdir())
    assert result["accuracy"] is None
    assert "confidence" in edge_adapt(*arguments).stdout


def test_progress_is_drawn_on_a_terminal_only(home: Path) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        with redirect_stderr(stream), ProgressBar() as bar:
            Bundle.open(home / "bundle").adapt(*support_arrays(), progress=bar.show)
        assert (f"step 1/{NET.steps}: " in stream.getvalue()) == drawn


def test_inspect_prints_the_manifest(home: Path) -> None:
    value = edge_adapt_json("inspect", home / "bundle")
    manifest = json.loads((home / "bundle" / "manifest.json").read_text())
    assert {key: value[key] for key in manifest} == manifest
    text = edge_adapt("inspect", home / "bundle").stdout
    assert "tiny-conv" in text
    assert "norm2" in text


def test_doctor_says_what_to_do_about_each_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    facts = edge_adapt_json("doctor")
    assert facts["blas_threads"] == "7"
    assert facts["engines"] == installed_engines()
    assert "reference" in facts["engines"]
    assert facts["default_engine"] == default_engine()
    assert any("OPENBLAS_NUM_THREADS is 7: edge-adapt sets it itself" in line for line in facts["notes"])
    assert not any("OPENBLAS" in line for line in facts["problems"])
    assert "note: OPENBLAS_NUM_THREADS is 7" in edge_adapt("doctor").stdout


@pytest.mark.skipif(not available(), reason="the native kernels are not compiled here")
def test_doctor_says_which_native_variant_is_in_use_and_which_are_built() -> None:
    facts = edge_adapt_json("doctor")
    assert facts["native_in_use"] == best().instruction_set
    assert facts["native_built"] == sorted(built())
    assert not any("native" in line for line in facts["problems"])


def test_the_command_line_is_deterministic_in_every_byte_it_writes(home: Path, tmp_path: Path) -> None:
    edge_adapt(
        "run", home / "bundle", "--support", home / "support.npz", "-o", tmp_path / "again", "--threads", 1
    )
    for name in ("delta.safetensors", "classes.json", "bundle.sha256"):
        assert (tmp_path / "again" / name).read_bytes() == (home / "adapted" / name).read_bytes()


def test_support_of_other_sizes_is_converted_and_said(home: Path, tmp_path: Path) -> None:
    for index in range(SAMPLES):
        folder = tmp_path / "photos" / f"{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (index * 20, 0, 0)).save(folder / f"{index}.jpg")
    output = ("-o", tmp_path / "adapted")
    done = edge_adapt("run", home / "bundle", "--support", tmp_path / "photos", *output, "--json")
    notes = json.loads(done.stdout)["converted"]
    assert any("resized to 12x12" in phrase for phrase in notes)
    assert done.stderr.splitlines() == [f"{tmp_path / 'photos'}: {phrase}" for phrase in notes]
