"""The Python API: what adaptation returns, reports, saves, and continues after an interruption."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge import AdaptedModel, BudgetError, Bundle, BundleError, SupportError, UsageError
from edge_adapt.edge.bundle import Checkpoint
from edge_adapt.edge.engines import (
    AdaptationInterrupted,
    NonFiniteError,
    Progress,
    default_engine,
    engine_named,
)
from edge_adapt.edge.engines.arena import Arena
from edge_adapt.edge.planning import target_of
from edge_adapt.edge.run import adapt, stream_support
from safetensors.numpy import load_file

from .bundles import NET, SAMPLES, support_arrays, write_bundle, write_npz


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("session") / "bundle")


@pytest.fixture
def bundle(path: Path) -> Bundle:
    return Bundle.open(path)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    images, labels = support_arrays()
    return write_npz(tmp_path / "support.npz", images=images, labels=labels)


def test_the_design_example_runs(bundle: Bundle, tmp_path: Path) -> None:
    images, labels = support_arrays()
    plan = bundle.plan(memory_budget="8MB", samples=25)
    model = bundle.adapt(images, labels, plan=plan)
    chances = model.predict(images)
    assert chances.shape == (SAMPLES, NET.classes)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert bundle.predict(images).shape == (SAMPLES, NET.classes)
    model.save(tmp_path / "adapted")
    again = bundle.load(tmp_path / "adapted")
    np.testing.assert_array_equal(again.predict(images), chances)
    assert again.class_names == model.class_names == ("0", "1", "2", "3", "4")
    assert again.report == model.report


def test_adaptation_lowers_the_loss_and_changes_no_file(bundle: Bundle, path: Path) -> None:
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    report = bundle.adapt(*support_arrays()).report
    assert report["loss"] < report["losses"][0]
    assert len(report["losses"]) == report["steps"] == NET.steps
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_the_reported_accuracy_and_loss_are_those_of_the_predictions(bundle: Bundle) -> None:
    images, labels = support_arrays()
    model = bundle.adapt(images, labels)
    chances = model.predict(images)
    assert model.report["support_accuracy"] == (chances.argmax(axis=1) == labels).mean()
    expected = -np.log(chances[np.arange(SAMPLES), labels]).mean()
    assert model.report["loss"] == pytest.approx(expected, rel=1e-12)


def test_preprocessed_float_images_give_the_same_model(bundle: Bundle) -> None:
    images, labels = support_arrays()
    values = bundle.files.manifest.input.preprocess(images)
    one, other = bundle.adapt(images, labels), bundle.adapt(values, labels)
    for name, value in one.adapted.tensors.items():
        np.testing.assert_array_equal(other.adapted.tensors[name], value)
    np.testing.assert_array_equal(one.predict(images), one.predict(values))


def test_labels_may_be_any_names_and_fewer_than_the_head_has(bundle: Bundle) -> None:
    images, labels = support_arrays(classes=2)
    model = bundle.adapt(images, ["cat" if label else "ant" for label in labels])
    assert model.class_names == ("ant", "cat")
    assert model.predict(images).shape == (SAMPLES, 2)


def test_fewer_samples_than_planned_are_fine_and_more_are_refused(bundle: Bundle) -> None:
    images, labels = support_arrays()
    plan = bundle.plan(samples=SAMPLES - 1)
    with pytest.raises(
        SupportError, match="10 samples, but the plan is for at most 9; plan with --samples 10"
    ):
        bundle.adapt(images, labels, plan=plan)
    assert bundle.adapt(images[:-2], labels[:-2], plan=plan).report["support_samples"] == SAMPLES - 2


def test_the_smallest_budget_an_error_names_is_met(bundle: Bundle) -> None:
    for option in ("memory_budget", "dynamic_budget"):
        with pytest.raises(BudgetError, match="smallest feasible is") as caught:
            bundle.plan(**{option: 1000})
        smallest = caught.value.smallest_bytes
        assert smallest is not None
        assert str(smallest) in str(caught.value)
        plan = bundle.plan(**{option: smallest})
        assert (plan.planned_peak_bytes if option == "memory_budget" else plan.dynamic_bytes) <= smallest
        with pytest.raises(BudgetError):
            bundle.plan(**{option: smallest // 2})


@pytest.mark.parametrize(
    "arguments", [{"samples": 0}, {"steps": -1}, {"steps": True}, {"memory_budget": "8 MBytes"}]
)
def test_arguments_that_mean_nothing_are_usage_errors(bundle: Bundle, arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        bundle.plan(**arguments)  # type: ignore[arg-type]


def test_a_plan_of_another_network_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    for name, net in (("larger", replace(NET, size=16)), ("deeper", replace(NET, blocks=3))):
        other = Bundle.open(write_bundle(tmp_path / name, net))
        with pytest.raises(UsageError, match=r"the plan does not fit .*: plan with this bundle"):
            bundle.adapt(*support_arrays(), plan=other.plan())


def test_an_unknown_engine_is_a_usage_error(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="engine 'warp' is not known, expected one of: native, reference"):
        bundle.adapt(*support_arrays(), engine="warp")


def test_progress_reaches_every_sample_of_every_step(bundle: Bundle) -> None:
    seen: list[Progress] = []
    bundle.adapt(*support_arrays(), progress=seen.append)
    assert (seen[-1].step, seen[-1].samples_done) == (NET.steps - 1, SAMPLES)
    assert {progress.step for progress in seen} == set(range(NET.steps))


def test_a_file_that_is_in_the_way_is_not_overwritten(bundle: Bundle, npz: Path, tmp_path: Path) -> None:
    model = bundle.adapt(*support_arrays())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"precious")
    (tmp_path / "notes.txt").write_text("precious")
    for name in ("photos", "notes.txt"):
        with pytest.raises(UsageError, match=r"exists and is not a"):
            model.save(tmp_path / name)
        with pytest.raises(UsageError, match=r"exists and is not a"):
            bundle.run(npz, tmp_path / name, bundle.request())
    assert (tmp_path / "photos" / "cat.png").read_bytes() == b"precious"
    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_an_adapted_model_is_replaced_whole(bundle: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "adapted"
    images, labels = support_arrays()
    bundle.adapt(images, labels).save(target)
    second = bundle.adapt(images[:6], labels[:6])
    second.save(target)
    assert bundle.load(target).report == second.report
    assert sorted(file.name for file in target.iterdir()) == [
        "bundle.sha256",
        "classes.json",
        "delta.safetensors",
        "report.json",
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["adapted"]


def test_an_adapted_model_of_another_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    bundle.adapt(*support_arrays()).save(tmp_path / "adapted")
    other = Bundle.open(write_bundle(tmp_path / "other", seed=5))
    with pytest.raises(BundleError, match=r"belongs to bundle .* name the bundle it was adapted from"):
        other.load(tmp_path / "adapted")
    with pytest.raises(BundleError, match="not an adapted model"):
        bundle.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.json", b"[1]", "expected a list of class names"),
        ("classes.json", b"[]", "expected 1 to 5 class names, got 0"),
        ("classes.json", b"[", r"classes\.json: cannot be read"),
        ("report.json", b"{", r"report\.json: malformed JSON"),
        ("delta.safetensors", b"", "truncated"),
    ],
)
def test_a_damaged_adapted_model_is_refused(
    bundle: Bundle, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    bundle.adapt(*support_arrays()).save(tmp_path / "adapted")
    (tmp_path / "adapted" / name).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        bundle.load(tmp_path / "adapted")


def interrupted_run(bundle: Bundle, npz: Path, output: Path, step: int) -> None:
    """Run until the first micro-batch of `step` and interrupt there."""

    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    with pytest.raises(AdaptationInterrupted, match=f"after {step} finished steps"):
        bundle.run(npz, output, bundle.request(), progress=stop)


@pytest.mark.parametrize("step", range(NET.steps))
def test_an_interrupted_run_continues_to_the_same_numbers(
    bundle: Bundle, npz: Path, tmp_path: Path, step: int
) -> None:
    whole = bundle.run(npz, tmp_path / "whole", bundle.request())
    interrupted_run(bundle, npz, tmp_path / "adapted", step)
    assert not (tmp_path / "adapted").exists()
    notes: list[str] = []
    model = bundle.run(npz, tmp_path / "adapted", bundle.request(), notify=notes.append)
    assert len(notes) == (step > 0)
    assert same_model(model, whole)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["adapted", "support.npz", "whole"]


def test_a_run_killed_after_the_last_step_only_writes(bundle: Bundle, npz: Path, tmp_path: Path) -> None:
    request, engine = bundle.request(), engine_named(default_engine(), bundle.files.path)
    checkpoint = Checkpoint(tmp_path / "adapted.partial")
    plan, target = bundle.plan(), target_of(engine)
    adapt(bundle.files, engine, lambda: stream_support(bundle.files, request, plan, target, npz), checkpoint)
    seen: list[Progress] = []
    model = bundle.run(npz, tmp_path / "adapted", request, progress=seen.append)
    assert not seen
    assert same_model(model, bundle.adapt(*support_arrays()))


@pytest.mark.parametrize("change", ["support set", "plan", "bundle"])
def test_what_another_run_left_is_discarded_and_said(
    bundle: Bundle, npz: Path, tmp_path: Path, change: str
) -> None:
    interrupted_run(bundle, npz, tmp_path / "adapted", 2)
    request = bundle.request()
    if change == "support set":
        images, labels = support_arrays(seed=9)
        write_npz(npz, images=images, labels=labels)
    if change == "plan":
        request = bundle.request(steps=2)
    if change == "bundle":
        bundle = Bundle.open(write_bundle(tmp_path / "other", seed=5))
    notes: list[str] = []
    model = bundle.run(npz, tmp_path / "adapted", request, notify=notes.append)
    assert len(notes) == 1
    assert f"was made with another {change}: it is discarded, the adaptation starts at step 1" in notes[0]
    assert same_model(model, bundle.run(npz, tmp_path / "fresh", request))


def test_a_damaged_leftover_is_discarded_and_said(bundle: Bundle, npz: Path, tmp_path: Path) -> None:
    interrupted_run(bundle, npz, tmp_path / "adapted", 2)
    kept = tmp_path / "adapted.partial" / "progress.safetensors"
    kept.write_bytes(kept.read_bytes()[:-7])
    notes: list[str] = []
    model = bundle.run(npz, tmp_path / "adapted", bundle.request(), notify=notes.append)
    assert "truncated" in notes[0]
    assert same_model(model, bundle.run(npz, tmp_path / "fresh", bundle.request()))


def test_a_diverging_run_names_the_step_and_keeps_the_last_good_one(npz: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(write_bundle(tmp_path / "bundle", step_size=1e25))
    with pytest.raises(NonFiniteError, match=r"step 2 of 3: .* is not finite; kept .* after 1 steps"):
        bundle.run(npz, tmp_path / "adapted", bundle.request())
    assert not (tmp_path / "adapted").exists()
    kept = load_file(tmp_path / "adapted.partial" / "progress.safetensors")
    assert "conv1.weight" in kept
    assert all(np.isfinite(value).all() for value in kept.values())


def same_model(one: AdaptedModel, other: AdaptedModel) -> bool:
    """Whether two models have the same bits, losses and accuracy."""
    tensors = {name: value.tobytes() for name, value in one.adapted.tensors.items()}
    keys = ("losses", "loss", "support_accuracy", "steps", "classes")
    return tensors == {name: value.tobytes() for name, value in other.adapted.tensors.items()} and all(
        one.report[key] == other.report[key] for key in keys
    )


def test_a_plan_runs_on_the_engine_it_was_made_for(bundle: Bundle) -> None:
    plan = bundle.plan(engine="reference")
    assert bundle.adapt(*support_arrays(), plan=plan).report["engine"] == "reference"
    if default_engine() != "reference":
        with pytest.raises(UsageError, match="the plan is for engine 'reference' with 1 thread"):
            bundle.adapt(*support_arrays(), plan=plan, engine=default_engine())


def test_engines_that_plan_agree(bundle: Bundle) -> None:
    models = [bundle.adapt(*support_arrays(), engine=name) for name in ("reference", default_engine())]
    images = support_arrays(seed=3)[0]
    np.testing.assert_allclose(models[0].logits(images), models[1].logits(images), rtol=1e-3, atol=1e-4)
    unadapted = [bundle.predict(images, engine=name) for name in ("reference", default_engine())]
    np.testing.assert_allclose(unadapted[0], unadapted[1], rtol=1e-4, atol=1e-5)


def test_every_row_of_the_frontier_is_smaller_and_loses_no_less(bundle: Bundle) -> None:
    plans = bundle.frontier(samples=3, engine="reference")
    peaks = [plan.planned_peak_bytes for plan in plans]
    assert len(plans) > 3
    assert peaks == sorted(set(peaks), reverse=True)
    assert plans[0].to_json() == bundle.plan(samples=3, engine="reference").to_json()
    assert bundle.plan(peaks[-1], samples=3, engine="reference").planned_peak_bytes == peaks[-1]
    with pytest.raises(BudgetError):
        bundle.plan(peaks[-1] - 1, samples=3, engine="reference")


@pytest.mark.parametrize("engine", sorted({"reference", default_engine()}))
def test_the_arena_is_given_back_when_the_adaptation_ends(bundle: Bundle, engine: str) -> None:
    plan = bundle.plan(engine=engine)
    gc.collect()
    gc.disable()
    try:
        model = bundle.adapt(*support_arrays(), plan=plan)
        assert not [found for found in gc.get_objects() if type(found) is Arena]
        assert model.report["kept"] is not False
    finally:
        gc.enable()
