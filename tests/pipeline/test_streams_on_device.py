"""Bundles that adapt by forward passes on the command line: the promise on memory, refusals, interrupts, no torch."""

from __future__ import annotations

import itertools
import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import default_engine
from edge_adapt.edge.errors import BudgetError, UsageError
from edge_adapt.edge.inputs import InputSpec, read_support
from PIL import Image
from torch import nn

from ..edge.commands import edge_adapt, edge_adapt_here, edge_adapt_json, error_line, start
from ..edge.test_no_torch import BLOCK, python
from ..export.learners import Learner, learner, write
from ..timing import least_seconds

SPEC = InputSpec(3, 48, 48, (0.5,) * 3, (0.3,) * 3)
WIDTHS, CLASSES, MARGIN = (16, 24, 160), 6, 2 << 20
KINDS = ("prototypes", "cnaps", "simple-cnaps")
BOTH = list(itertools.product(KINDS[1:], sorted({default_engine(), "reference"})))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of every kind, a folder of photos in four classes, and the same as an .npz."""
    home = tmp_path_factory.mktemp("streams")
    for kind in KINDS:
        write(home / kind, kind, learner(kind, widths=WIDTHS, colours=3), SPEC, CLASSES)
    rng = np.random.default_rng(0)
    for number in range(22):
        place = home / "photos" / f"class{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).resize((320, 240))
        image.save(place / f"{number}.jpg")
    images = rng.integers(0, 256, (22, *SPEC.pixel_shape), np.uint8)
    np.savez(home / "support.npz", images=images, labels=np.arange(22) % 4)
    return home


def check_promise(report: dict[str, Any]) -> None:
    assert report["kept"] is True
    assert report["measured_peak_bytes"] <= report["planned_peak_bytes"] + MARGIN
    assert report["measured_dynamic_bytes"] <= report["dynamic_bytes"]
    assert report["measured_dynamic_bytes"] >= 0.9 * report["dynamic_bytes"], (
        "the plan is far above what is used"
    )
    assert sum(report["terms"].values()) == report["planned_peak_bytes"]


@pytest.mark.parametrize(("kind", "engine"), BOTH)
def test_a_run_in_a_fresh_process_keeps_the_plan(kind: str, engine: str, home: Path, tmp_path: Path) -> None:
    words = ("run", home / kind, "--support", home / "photos", "-o", tmp_path / "adapted", "--engine", engine)
    report = edge_adapt_json(*words)
    if report["measured_peak_bytes"] is None:
        pytest.skip("peaks cannot be measured here")
    check_promise(report)
    assert (report["schedule"], report["steps"], report["support_samples"]) == ("stream", 1, 22)
    assert report["layers"][0][-1] == "head"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapted"]


def large(inputs: int, outputs: int) -> nn.Sequential:
    """A generator of more than 4.4 MB."""
    wide = (nn.Linear(inputs, 1050), nn.ReLU(), nn.Linear(1050, 1050), nn.ReLU())
    return nn.Sequential(*wide, nn.Linear(1050, 8), nn.Linear(8, outputs))


def test_only_one_programs_weights_are_in_memory_at_a_time(tmp_path: Path) -> None:
    widths = (8, 330, 370)
    small = learner("cnaps", widths=widths, colours=3)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder, films, head = nn.Sequential(pooled, large(3, 5)), large(5, 2 * sum(widths)), large(370, 371)
    bundle = write(
        tmp_path / "b", "cnaps", Learner(small.extractor, small.films, encoder, films, head), SPEC, 4
    )
    images = np.random.default_rng(0).integers(0, 256, (12, *SPEC.pixel_shape), np.uint8)
    np.savez(tmp_path / "support.npz", images=images, labels=np.arange(12) % 4)
    report = edge_adapt_json("run", bundle, "--support", tmp_path / "support.npz", "-o", tmp_path / "adapted")
    if report["measured_peak_bytes"] is None:
        pytest.skip("peaks cannot be measured here")
    check_promise(report)
    largest = report["terms"]["weights"]
    assert 4.4e6 < largest < 6.4e6
    assert report["measured_peak_bytes"] > 0.9 * largest, "weights that the baseline holds would not be seen"


def test_the_smallest_budget_that_is_named_is_kept_and_one_byte_less_is_refused(
    home: Path, tmp_path: Path
) -> None:
    bundle = home / "simple-cnaps"
    words = ("run", bundle, "--support", home / "support.npz", "-o", tmp_path / "adapted")
    refused = edge_adapt("plan", bundle, "--memory-budget", 1000, "--samples", 22, code=3)
    smallest = int(error_line(refused).split("the smallest feasible is ")[1].split()[0])
    edge_adapt_here("plan", bundle, "--memory-budget", smallest, "--samples", 22)
    edge_adapt_here("plan", bundle, "--memory-budget", smallest - 1, "--samples", 22, code=3)
    report = edge_adapt_json(*words, "--memory-budget", smallest)
    if report["measured_peak_bytes"] is not None:
        check_promise(report)
        assert report["measured_peak_bytes"] <= smallest + MARGIN
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_budget_never_gives_a_slower_plan_and_every_plan_fits(kind: str, home: Path) -> None:
    bundle = Bundle.open(home / kind)
    plans = bundle.frontier(samples=30)
    peaks, seconds = (
        [getattr(plan, key) for plan in plans] for key in ("planned_peak_bytes", "predicted_seconds")
    )
    assert peaks == sorted(peaks, reverse=True)
    assert seconds == sorted(seconds)
    for budget in (*peaks, *(peak + 5000 for peak in peaks)):
        plan = bundle.plan(memory_budget=budget, samples=30)
        assert plan.planned_peak_bytes <= budget
        assert plan.predicted_seconds == min(s for p, s in zip(peaks, seconds, strict=True) if p <= budget)
    with pytest.raises(BudgetError) as refusal:
        bundle.plan(memory_budget=peaks[-1] - 1, samples=30)
    assert refusal.value.smallest_bytes == peaks[-1]
    arena = bundle.plan(dynamic_budget=plans[-1].dynamic_bytes, samples=30)
    assert arena.dynamic_bytes <= plans[-1].dynamic_bytes


def test_hundreds_of_samples_take_no_more_than_their_names(home: Path) -> None:
    bundle = Bundle.open(home / "simple-cnaps")
    few, many = (bundle.plan(samples=count, memory_budget="2MB") for count in (20, 1000))
    leanest = bundle.frontier(samples=1000)[-1]
    assert leanest.planned_peak_bytes - bundle.frontier(samples=20)[-1].planned_peak_bytes == 980 * 208
    assert max(few.micro_batch, many.micro_batch) <= 64


def test_a_plan_for_ten_million_samples_is_made_at_once_and_more_are_refused(home: Path) -> None:
    bundle = Bundle.open(home / "cnaps")
    assert bundle.plan(samples=10_000_000).micro_batch <= 64
    assert least_seconds(lambda: bundle.plan(samples=10_000_000)) < 5
    with pytest.raises(UsageError, match="samples: expected at most 10000000, got 10000001"):
        bundle.plan(samples=10_000_001)


def test_more_samples_than_planned_for_are_welcome(home: Path, tmp_path: Path) -> None:
    words = (
        "run",
        home / "prototypes",
        "--support",
        home / "support.npz",
        "-o",
        tmp_path / "a",
        "--samples",
        3,
    )
    report = json.loads(edge_adapt_here(*words, "--json").stdout)
    assert (report["samples"], report["support_samples"]) == (22, 22)


def test_a_folder_and_its_pixels_give_the_same_model(home: Path, tmp_path: Path) -> None:
    files = sorted((home / "photos").rglob("*.jpg"))
    bundle = Bundle.open(home / "cnaps")
    whole = read_support(home / "photos", SPEC)
    assert len(whole) == len(files)
    held = bundle.adapt(whole.images, whole.labels).adapted.tensors
    streamed = bundle.run(home / "photos", tmp_path / "adapted", bundle.request()).adapted.tensors
    for name, value in held.items():
        assert np.allclose(streamed[name], value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()))


def test_bad_support_sets_are_one_line_and_code_5(home: Path, tmp_path: Path) -> None:
    def refused(support: Path, *more: object) -> str:
        words = ("run", home / "cnaps", "--support", support, "-o", tmp_path / "adapted", *more)
        message = error_line(edge_adapt_here(*words, code=5))
        assert not list(tmp_path.glob("adapted*"))
        return message

    images = np.zeros((14, *SPEC.pixel_shape), np.uint8)
    np.savez(tmp_path / "many.npz", images=images, labels=np.arange(14) % 7)
    assert "7 classes, but the model's head has 6 outputs" in refused(tmp_path / "many.npz")
    np.savez(tmp_path / "one.npz", images=images, labels=np.zeros(14, int))
    assert "at least 2 classes, got 1" in refused(tmp_path / "one.npz")
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (60, 60)).save(tmp_path / "photos" / name / "1.png")
    (tmp_path / "photos" / "b" / "2.png").write_bytes(
        (tmp_path / "photos" / "b" / "1.png").read_bytes()[:-30]
    )
    assert "2.png: cannot be decoded" in refused(tmp_path / "photos")
    Image.new("RGB", (3000, 3000)).save(tmp_path / "photos" / "b" / "2.png")
    assert "2.png: decoding it takes" in refused(tmp_path / "photos", "--memory-budget", "3MB")
    (tmp_path / "photos" / "c").mkdir()
    assert "the class folder is empty" in refused(tmp_path / "photos")


def test_engines_that_do_not_stream_refuse_and_predict(home: Path, tmp_path: Path) -> None:
    words = ("run", home / "simple-cnaps", "--support", home / "support.npz", "-o")
    message = error_line(edge_adapt_here(*words, tmp_path / "x", "--engine", "onnxruntime", code=2))
    assert "cannot adapt a bundle of kind simple-cnaps" in message
    edge_adapt_here(*words, tmp_path / "adapted")
    predict = (
        "predict",
        tmp_path / "adapted",
        "--bundle",
        home / "simple-cnaps",
        "--input",
        home / "support.npz",
    )
    found = [
        json.loads(edge_adapt_here(*predict, "--engine", e, "--json").stdout)
        for e in ("onnxruntime", "reference")
    ]
    rows = [[row["class"] for row in one["predictions"]] for one in found]
    assert rows[0] == rows[1]
    assert found[0]["accuracy"] == found[1]["accuracy"]


def test_gradient_steps_are_refused(home: Path) -> None:
    message = error_line(edge_adapt_here("plan", home / "cnaps", "--steps", 3, code=2))
    assert message == "steps: a bundle of kind cnaps adapts by forward passes, it has no gradient steps"


def test_features_that_are_not_finite_are_named(home: Path) -> None:
    bundle = Bundle.open(home / "prototypes")
    images = np.zeros((4, 3, 48, 48), np.float32)
    images[2] = 3e38
    with pytest.raises(Exception, match=r"sample 2: the network's features output is not finite"):
        bundle.adapt(images, np.arange(4) % 2)


def test_ctrl_c_leaves_nothing_behind(home: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a", "b"):
        (photos / name).mkdir(parents=True)
        image = Image.effect_noise((2500, 2500), 90).convert("RGB")
        image.save(photos / name / "0.jpg")
        for number in range(1, 40):
            (photos / name / f"{number}.jpg").hardlink_to(photos / name / "0.jpg")
    process = start(
        "run", home / "cnaps", "--support", photos, "-o", tmp_path / "adapted", "--engine", "reference"
    )
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert message.decode().strip().endswith("error: interrupted")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_every_verb_works_where_torch_and_onnx_cannot_be_imported(home: Path, tmp_path: Path) -> None:
    verbs = """
from edge_adapt.edge.cli import main
bundle, support, home = sys.argv[1:]
for words in (
    ["plan", bundle, "--sweep"],
    ["run", bundle, "--support", support, "-o", home + "/adapted"],
    ["predict", home + "/adapted", "--bundle", bundle, "--input", support],
    ["merge", home + "/adapted", "--bundle", bundle, "-o", home + "/merged"],
    ["inspect", bundle],
    ["verify", bundle],
    ["bench", bundle, "--rounds", "1", "--engine", "reference", "--samples", "4"],
):
    assert main(words) == 0, words
"""
    done = python(BLOCK + verbs, home / "simple-cnaps", home / "support.npz", tmp_path)
    assert "numbers agree with PyTorch" in done.stderr
    assert {path.name for path in (tmp_path / "merged").iterdir()} >= {"model.onnx", "weights.safetensors"}
    assert "schedule stream" in done.stdout
