"""The time that is predicted of adapting by forward passes, against real runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import default_engine, engine_named
from edge_adapt.edge.engines.planned import PlannedEngine
from edge_adapt.edge.planning import make_plan
from edge_adapt.edge.run import adapt, stream_support
from PIL import Image

from ..edge.commands import edge_adapt_json
from ..export.learners import SPEC, learner, write

TIMES = 20
"""Processor time depends on the machine and what else it does; this is to notice factors of a hundred."""


def predicted_and_taken(bundle: Bundle, support: Path) -> tuple[float, float]:
    """Predicted seconds of a run, and the processor time it took."""
    engine = engine_named(default_engine(), bundle.files.path, 1)
    assert isinstance(engine, PlannedEngine)
    request, target = bundle.request(), engine.target
    plan = make_plan(bundle.files, request, target)
    found = adapt(bundle.files, engine, lambda: stream_support(bundle.files, request, plan, target, support))
    return found.plan.predicted_seconds, found.adaptation.cpu_seconds


def test_covariances_of_many_features_are_in_time_and_operations(tmp_path: Path) -> None:
    bundle = Bundle.open(
        write(tmp_path / "b", "simple-cnaps", learner("simple-cnaps", widths=(8, 384)), SPEC, 8)
    )
    images = np.random.default_rng(0).integers(0, 256, (40, *SPEC.pixel_shape), np.uint8)
    np.savez(tmp_path / "s.npz", images=images, labels=np.arange(40) % 8)
    predicted, taken = predicted_and_taken(bundle, tmp_path / "s.npz")
    assert predicted / TIMES < taken < predicted * TIMES
    solving = 2 * 384**3 // 3
    few, many = (bundle.plan(samples=40).macs, bundle.plan(samples=140).macs)
    assert few > 8 * solving
    assert many - few > 100 * 384 * 384 // 2


def photos(home: Path, size: tuple[int, int]) -> Path:
    """Thirty JPEG files of this size in three classes."""
    rng = np.random.default_rng(0)
    for number in range(30):
        place = home / f"class{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).resize(size)
        image.save(place / f"{number}.jpg")
    return home


def test_decoding_is_in_the_prediction(tmp_path: Path) -> None:
    bundle = Bundle.open(write(tmp_path / "b", "prototypes", learner("prototypes")))
    predicted, taken = predicted_and_taken(bundle, photos(tmp_path / "large", (1000, 800)))
    assert predicted / TIMES < taken < predicted * TIMES
    assert predicted > 5 * bundle.plan(support=photos(tmp_path / "small", (40, 30))).predicted_seconds


def test_long_labels_are_read_within_the_plan(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b", "prototypes", learner("prototypes"))
    images = np.random.default_rng(0).integers(0, 256, (6000, *SPEC.pixel_shape), np.uint8)
    np.savez(tmp_path / "s.npz", images=images, labels=[f"{'k' * 190}{n % 4}" for n in range(6000)])
    report = edge_adapt_json("run", bundle, "--support", tmp_path / "s.npz", "-o", tmp_path / "adapted")
    assert report["planned_peak_bytes"] < 2_000_000
    if report["measured_peak_bytes"] is None:
        pytest.skip("peaks cannot be measured here")
    assert report["kept"] is True
